"""The smallest U-Net of volumes that goes down and up again, as assignments of a preset."""

TWO_LEVELS = (
    "model.kind=plain",
    "model.features=[4, 8]",
    "model.kernel_sizes=[[3, 3, 3], [3, 3, 3]]",
    "model.strides=[[1, 1, 1], [2, 2, 2]]",
    "model.encoder_blocks=[1, 1]",
    "model.decoder_convolutions=[1]",
)
