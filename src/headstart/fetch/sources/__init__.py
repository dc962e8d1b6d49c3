"""Where pictures come from: one module for each kind of source, each an iterator of images and rejections."""
