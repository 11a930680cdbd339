"""Videos, images and sound in and out, through the ffmpeg that imageio-ffmpeg brings."""
