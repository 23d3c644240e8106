"""Using networks on pictures and videos: tiles, pixels in and out of files, folders, the task `predict`."""
