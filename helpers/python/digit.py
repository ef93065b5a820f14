"""From a picture of a digit to JSON: the two helpers around the model digits-cnn.

    decode  the bytes of a PNG or JPEG -> 8 x 8 pixels from 0 to 16, as the model was trained with
    format  the model's label and probabilities -> {"digit": 7, "confidence": 0.98}

configs/digit-images.yaml runs it. It needs Pillow (Debian: python3-pil).
"""

import io
import json

from PIL import Image, UnidentifiedImageError

import preforkd_helper as helper

SIDE = 8
LIMIT = 4096  # a picture may be small in bytes and huge in pixels
SCALE = [p * 16 / 255 for p in range(256)]


@helper.model(inputs=[("image", "BYTES", [1])], outputs=[("pixels", "FP32", [1, SIDE * SIDE])])
def decode(request):
    (data,) = request["image"]
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        if max(image.size) > LIMIT:
            raise helper.Refused(f"the picture is larger than {LIMIT} x {LIMIT}", 413)
        image = image.convert("L").resize((SIDE, SIDE), Image.BOX)
    except (UnidentifiedImageError, OSError, SyntaxError) as e:
        raise helper.Refused(f"no PNG or JPEG: {e}", 415)
    pixels = image.tobytes()
    if sum(pixels) > 128 * len(pixels):  # dark on light: the model knows light on dark
        pixels = bytes([255 - p for p in pixels])
    return {"pixels": helper.array("FP32", [SCALE[p] for p in pixels])}


@helper.model(
    name="format",
    inputs=[("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 10])],
    outputs=[("answer", "BYTES", [1])],
)
def answer(request):
    digit, probabilities = request["label"][0], request["probabilities"]
    text = json.dumps({"digit": digit, "confidence": round(probabilities[digit], 6)})
    return {"answer": helper.Value([text], content_type="application/json")}


helper.serve()
