"""Detector heads (FCOS, RetinaNet, Faster R-CNN, SSD) and what they are made of: anchors, NMS, RoIAlign."""
