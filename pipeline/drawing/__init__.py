"""The annotated image: boxes, trails, labels, contours and enlarged views drawn over a frame."""
