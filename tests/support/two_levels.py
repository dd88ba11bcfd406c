"""The smallest U-Net that goes down and up again, and a short training, as assignments."""


def two_levels(dimensions: int) -> tuple[str, ...]:
    """The network; the size of its patches is left to the test."""
    kernel, stride = [3] * dimensions, [2] * dimensions
    return (
        "model.kind=plain",
        "model.features=[4, 8]",
        f"model.kernel_sizes={[kernel, kernel]}",
        f"model.strides={[[1] * dimensions, stride]}",
        "model.encoder_blocks=[1, 1]",
        "model.decoder_convolutions=[1]",
    )


TWO_LEVELS = two_levels(3)
ONE_EPOCH = (
    "model.budget=cpu",
    "train.epochs=1",
    "train.batch_cases=2",
    "train.examples_per_case=1",
    "train.test_share=0.25",
    "metrics.bootstrap_draws=100",
    "infer.step=1.0",
)
