"""Images between decoder and network: files, pixel formats, sensor correction, grey levels and geometry."""
