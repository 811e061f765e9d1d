"""From a trained controller to one checked ONNX file, and back from the file."""
