"""VGG-16 with batch norm and one linear layer, as used on CIFAR.

References
----------
Simonyan, Zisserman, "Very deep convolutional networks for large-scale image
recognition", ICLR 2015, configuration D.
"""

from torch import Tensor, nn

from mipprune.models._checks import image_pair, positive, scaled

__all__ = ["VGG16"]

_LAYOUT = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions (with bias) in five blocks, each block pooled.

    A block is not pooled where the image is already one pixel high or wide,
    and what is left of the image is averaged, so that every image size works;
    at 32x32 the map is 1x1 and the average is the identity.

    Parameters
    ----------
    in_channels, num_classes : int
    image_size : int or (int, int)
        Height and width; decides how many pools fit.
    width : float
        Factor of all widths: 0.4375 gives a slim network of 28 to 224 channels.
    stem_stride : int
        Stride of the first convolution.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
        width: float = 1.0,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        stem_stride = positive("stem_stride", stem_stride)
        size = min(-(-side // stem_stride) for side in image_pair(image_size))
        layers: list[nn.Module] = []
        channels, stride = in_channels, stem_stride
        for base, n_convolutions in _LAYOUT:
            out_channels = scaled(base, width)
            for _ in range(n_convolutions):
                layers += [
                    nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1),
                    nn.BatchNorm2d(out_channels),
                    nn.ReLU(),
                ]
                channels, stride = out_channels, 1
            if size >= 2:
                layers.append(nn.MaxPool2d(2))
                size //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> logits (n, num_classes)."""
        out: Tensor = self.features(x)
        logits: Tensor = self.classifier(out.mean(dim=(2, 3)))
        return logits
