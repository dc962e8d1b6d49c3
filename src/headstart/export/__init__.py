"""The export stage: ONNX, checked against the PyTorch model, quantized and timed; predictions by onnxruntime alone."""

__all__ = [
    "comparison",
    "model_prediction",
    "onnx_classifier",
    "onnx_detector",
    "prediction_files",
    "predictor",
    "saved_predictions",
    "speed",
    "stage",
]
