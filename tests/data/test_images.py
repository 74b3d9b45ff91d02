"""Decoding images of every kind, and preparing them as the image processors of Hugging Face do."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from zoo.config import ConfigError
from zoo.data.images import ImageConfig, ImageError, decode, prepared, resized

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "images.npz")
RED, GREEN = (200, 30, 40), (10, 180, 20)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONFIGS = {
    "vit": ImageConfig((20, 24)),
    "blip": ImageConfig((20, 24), resample="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
    "clip": ImageConfig((20, 20), resize="crop", resample="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
}


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def two_colours(width=8, height=4):
    """Red on the left, green on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    return image


def sides(pixels):
    """The middle pixel of the left and of the right half."""
    height, width = pixels.shape[:2]
    return [tuple(int(value) for value in pixels[height // 2, x]) for x in (width // 4, 3 * width // 4)]


# === Decoding ===


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_every_format_gives_its_pixels(format):
    pixels = decode(encoded(two_colours(), format))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(two_colours()))


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format):
    pixels = decode(encoded(two_colours(32, 16), format, quality=95))
    np.testing.assert_allclose(sides(pixels), [RED, GREEN], atol=8)


def test_a_path_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(two_colours()))
    for given in (path, str(path)):
        assert sides(decode(given)) == [RED, GREEN]


def test_the_pixels_are_the_callers_own():
    decode(encoded(two_colours()))[0, 0] = 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_undone(orientation):
    upright = two_colours(40, 24)
    upright.paste((0, 0, 0), (0, 0, 40, 6))  # dark above
    # How the sensor saw it, by the definition of the EXIF tag: what rows 0 and columns 0 of the file show.
    flip, turn = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(flip),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(turn.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(turn.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(turn.TRANSVERSE),
        8: lambda image: image.rotate(-90, expand=True),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "JPEG"):
        pixels = decode(encoded(stored, format, exif=exif))
        np.testing.assert_allclose(pixels[12:, [8, 32]].mean(axis=0), [RED, GREEN], atol=8)
        assert pixels[:3].mean() < 40


def test_a_damaged_orientation_is_not_minded():
    data = encoded(two_colours(32, 16), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff", quality=95)
    np.testing.assert_allclose(sides(decode(data)), [RED, GREEN], atol=8)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_grey_has_three_equal_channels(format):
    pixels = decode(encoded(Image.new("L", (5, 3), 77), format))
    np.testing.assert_array_equal(pixels, np.full((3, 5, 3), 77))


def test_black_and_white_is_0_and_255():
    image = Image.new("1", (4, 2), 1)
    image.putpixel((0, 0), 0)
    pixels = decode(encoded(image))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[1, 3].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb():
    pixels = decode(encoded(two_colours(32, 16).convert("CMYK"), "JPEG", quality=95))
    np.testing.assert_allclose(sides(pixels), [RED, GREEN], atol=12)


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((100, 0, 0, 128), (4, 0, 8, 4))
    left, right = sides(decode(encoded(image)))
    assert left == (255, 255, 255)
    # Half of the colour and half of white.
    np.testing.assert_allclose(right, (177, 127, 127), atol=1)


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_a_transparent_colour_lies_on_white(mode):
    image = Image.new(mode, (8, 4), 0)
    if mode == "P":
        image.putpalette([9, 9, 9, *GREEN])
    image.paste({"P": 1, "RGB": GREEN, "L": 60}[mode], (4, 0, 8, 4))
    data = encoded(image, transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert sides(decode(data)) == [(255, 255, 255), (60, 60, 60) if mode == "L" else GREEN]


def test_a_palette_gives_its_colours():
    image = two_colours().quantize(4)
    assert image.mode == "P"
    assert sides(decode(encoded(image))) == [RED, GREEN]


def test_16_bits_are_scaled_to_8():
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    pixels = decode(encoded(Image.fromarray(values)))
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (pixels == pixels[..., :1]).all()


def test_16_bits_of_a_tiff_or_ppm_too():
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    plain = b"P5 4 1 65535\n" + values.astype(">u2").tobytes()
    for data in (encoded(Image.fromarray(values), "TIFF"), plain):
        assert decode(data)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN)]
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 2
        np.testing.assert_array_equal(decode(data), np.asarray(frames[0]))


def test_one_pixel_is_an_image():
    pixels = decode(encoded(Image.new("RGB", (1, 1), RED)))
    assert pixels.tolist() == [[list(RED)]]
    np.testing.assert_allclose(
        prepared(pixels, ImageConfig((3, 5))), np.broadcast_to(np.array(RED) / 127.5 - 1, (3, 5, 3)), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_huge_jpeg_is_decoded_scaled_down_in_bounded_memory(mode, tmp_path):
    path = tmp_path / "huge.jpg"
    Image.new(mode, (12_000, 9_000), 99 if mode == "L" else RED).save(path, quality=90)
    program = (
        "import resource, sys\n"
        "from zoo.data.images import decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pixels = decode(sys.argv[1])\n"
        "print(*pixels.shape, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *pixels[700, 900])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    height, width, channels, kilobytes, *colour = map(int, done.stdout.split())
    assert (height, width, channels) == (4500, 6000, 3)
    np.testing.assert_allclose(colour, (99,) * 3 if mode == "L" else RED, atol=4)
    assert kilobytes < 250_000  # whole it would be 324 MB, and twice that while it is copied


# === Errors ===


def broken(kind, folder):
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
    png = bytearray(encoded(two_colours(64, 64)))
    png[60] ^= 255
    path = folder / "a.jpg"
    content = {
        "empty": b"",
        "text": b"this is no image",
        "cut": whole[: len(whole) // 2],
        "header": whole[:100],
        "checksum": bytes(png),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "float": encoded(Image.new("F", (2, 2)), "TIFF"),
    }
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("empty", "the file is empty"),
        ("text", "not an image; it takes JPEG, PNG, GIF, WebP, BMP, TIFF or PPM"),
        ("svg", "not an image; "),
        ("postscript", "not an image; "),
        ("cut", "a damaged image: image file is truncated"),
        ("header", "a damaged image: "),
        ("checksum", "a damaged image: "),
        ("float", "floating-point pixels have no range; save it with 8 or 16 bits"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(kind, problem, tmp_path):
    path = broken(kind, tmp_path)
    for image, name in ((path, None), (path.read_bytes(), str(path))):
        with pytest.raises(ImageError) as raised:
            decode(image, name)
        assert str(raised.value).startswith(f"{path}: {problem}")
        assert "\n" not in str(raised.value)


def test_a_path_without_an_image_is_named(tmp_path):
    for path, problem in (
        (tmp_path / "none.jpg", f"{tmp_path}/none.jpg: no such file"),
        (tmp_path, f"{tmp_path}: cannot be read: Is a directory"),
        ("a\0b.jpg", "a\0b.jpg: cannot be read: embedded null byte"),
        ("https://example.org/a.jpg", "https://example.org/a.jpg: an address; download the image and name its file"),
    ):
        with pytest.raises(ImageError) as raised:
            decode(path)
        assert str(raised.value) == problem


def test_what_is_too_large_to_be_decoded_whole_is_refused_at_once():
    # A header alone: nothing of the pixels is read.
    png = bytearray(encoded(Image.new("1", (12_000, 9_000))))
    with pytest.raises(
        ImageError, match=r"^image: 12000 x 9000 pixels; PNG is decoded whole, up to 60,000,000 pixels: "
    ):
        decode(bytes(png[:200]))
    png = encoded(Image.new("1", (20_000, 10_000)))
    with pytest.raises(ImageError, match=r"^big\.png: more than 178,956,970 pixels; scale it down$"):
        decode(png, "big.png")


# === Preparing ===


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", CONFIGS)
def test_prepared_as_by_the_processors_of_hugging_face(name, number):
    found = prepared(FIXTURE[f"{number}/image"], CONFIGS[name])
    assert found.dtype == np.float32
    # Pillow before 13 rounds some pixels the other way; the fixture is of 13.
    level = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1.01 / 255 / min(CONFIGS[name].std)
    np.testing.assert_allclose(found, FIXTURE[f"{number}/{name}"], atol=1e-5 + level)


def test_channels_and_scale_are_the_encoders():
    image = np.tile(np.array([10, 20, 30], np.uint8), (4, 4, 1))
    config = ImageConfig((4, 4), scale=1.0, mean=(1, 2, 3), std=(1, 2, 4), channels="bgr")
    np.testing.assert_allclose(prepared(image, config)[0, 0], [27 / 4, 9, 9])


@pytest.mark.parametrize("size", [(10, 10), (10, 30), (30, 10)])
@pytest.mark.parametrize("shape", [(40, 40), (40, 90), (90, 40), (3, 2000), (2000, 1)])
def test_a_crop_keeps_the_middle_and_the_aspect_ratio(size, shape):
    # A cross of light through the middle, on dark.
    image = np.zeros((*shape, 3), np.uint8)
    image[shape[0] // 2] = image[:, shape[1] // 2] = 255
    found = resized(image, ImageConfig(size, resize="crop"))
    assert found.shape == (*size, 3)
    light = np.argwhere(found[..., 0] == found.max())
    # As far off as one pixel of the image is wide, where it is enlarged.
    most = max(1, size[0] / shape[0], size[1] / shape[1])
    assert np.abs(light.mean(axis=0) - (np.array(size) - 1) / 2).max() <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 5)}, r"size: \[0, 5\]; it takes height and width in pixels"),
        ({"std": (1, 0, 1)}, r"std: \[1.0, 0.0, 1.0\]; all are positive"),
        ({"resize": "crob"}, "did you mean 'crop'"),
    ],
)
def test_a_bad_configuration_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        ImageConfig(**changes)
