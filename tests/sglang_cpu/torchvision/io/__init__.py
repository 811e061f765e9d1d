class ImageReadMode:
    pass


def decode_image(*args: object, **kwargs: object) -> None:
    raise NotImplementedError("torchvision stand-in: decode_image")
