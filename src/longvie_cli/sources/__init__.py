"""Where controls come from: a video, a folder, a camera path, a flight, or nowhere."""
