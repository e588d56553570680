"""What reads each kind of source, a module for each: pictures, video, streams, raw frames, zarr arrays.

A reader knows its `info` from construction, gives its frames once through `frames()`, and holds files open
until `close()`. All that can be known to be wrong raises SourceError on construction; what goes wrong later
raises `SourceLost` after the last good frame. Sizes are checked before memory is taken for them.
"""
