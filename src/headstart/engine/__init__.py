"""How a network runs on this machine: pixels in, outputs out; device, precision, compilation, folded batch norm."""

__all__ = [
    "compile",
    "cpu",
    "device",
    "equivalence",
    "fold_batch_norm",
    "inference",
    "input_spec",
    "pixels",
    "streams",
    "tile_manifest",
    "tiles",
    "trace",
]
