#!/usr/bin/env python
"""Write tests/golden/images: small pictures and what Hugging Face's image processors make of them.

    python make_images.py ../images
    python make_images.py ../images --only qwen2_vl_own      # of the pictures that are there

Class `transformers.CLIPImageProcessorPil`: the PIL implementation of `CLIPImageProcessor` (named
`CLIPImageProcessor`, "slow", before transformers 5). It resizes 8-bit pixels with Pillow, so values are
rounded to whole 8-bit steps between resize and normalisation. Likewise for SigLIP, BLIP, DINOv2 and ViT.
The photographs are those bundled with scikit-image; tests/golden/README.md names their licences.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from safetensors.numpy import save_file
from transformers import (BitImageProcessorPil, BlipImageProcessorPil, CLIPImageProcessorPil, SiglipImageProcessorPil,
                          Qwen2VLImageProcessorPil, ViTImageProcessorPil)

CLIP = dict(do_convert_rgb=True, do_resize=True, resample=3, do_center_crop=True, do_rescale=True,
            rescale_factor=1 / 255, do_normalize=True, image_mean=[0.48145466, 0.4578275, 0.40821073],
            image_std=[0.26862954, 0.26130258, 0.27577711], image_processor_type="CLIPImageProcessor")

# folder -> (the settings that differ from CLIP's, pictures)
ALL = ("astronaut_square_q90.jpg", "astronaut_cmyk.jpg", "chelsea_grey.jpg", "chelsea_landscape_q95.jpg",
       "coffee_portrait_420.jpg", "coffee_upscale.jpg", "logo_rgba.png", "logo_palette.png", "rocket_wide_q30.jpg")
FOLDERS = {
    "clip48": (dict(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}), ALL),
    # odd numbers throughout: margins of the crop that do not divide by two
    "clip_resize57_crop45": (dict(size={"shortest_edge": 57}, crop_size={"height": 45, "width": 45}),
                             ("chelsea_landscape_q95.jpg", "coffee_portrait_420.jpg")),
    # crop larger than the resized picture: zeros around it (before normalisation)
    "clip_resize40_crop56": (dict(size={"shortest_edge": 40}, crop_size={"height": 56, "width": 56}),
                             ("rocket_wide_q30.jpg",)),
    # the picture is squeezed into a square and not cropped
    "square48_nocrop": (dict(size={"height": 48, "width": 48}, do_center_crop=False),
                        ("chelsea_landscape_q95.jpg", "coffee_upscale.jpg")),
    "bilinear48_half": (dict(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, resample=2,
                             image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]), ("rocket_wide_q30.jpg",)),
    "no_resize_crop50": (dict(do_resize=False, crop_size={"height": 50, "width": 50}, do_normalize=False),
                         ("astronaut_square_q90.jpg",)),
    # sizes as old configurations state them, a plain number
    "clip44_plain_numbers": (dict(size=44, crop_size=44), ("chelsea_landscape_q95.jpg",)),
    "clip224": (dict(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
                ("coffee_portrait_420.jpg",)),
}
# The same for other processors, whole files: folder -> (class, file, pictures)
OTHERS = {
    "siglip40": (SiglipImageProcessorPil,
                 dict(image_processor_type="SiglipImageProcessor", size={"height": 40, "width": 40}, resample=3),
                 ("chelsea_landscape_q95.jpg", "logo_rgba.png")),
    # DINOv2's
    "bit_resize55_crop48": (BitImageProcessorPil,
                            dict(image_processor_type="BitImageProcessor", size={"shortest_edge": 55}, resample=3,
                                 crop_size={"height": 48, "width": 48}, image_mean=[0.485, 0.456, 0.406],
                                 image_std=[0.229, 0.224, 0.225]),
                            ("coffee_portrait_420.jpg", "logo_rgba.png")),
    # ViT's, whose filter is another
    "vit46_plain_number": (ViTImageProcessorPil, dict(image_processor_type="ViTFeatureExtractor", size=46),
                           ("chelsea_landscape_q95.jpg", "coffee_upscale.jpg")),
    "blip44_plain_number": (BlipImageProcessorPil, dict(image_processor_type="BlipImageProcessor", size=44),
                            ("rocket_wide_q30.jpg", "logo_palette.png")),
    # Qwen2.5-VL's and Qwen3-VL's: sizes of each picture's own
    "qwen2_vl_own": (Qwen2VLImageProcessorPil,
                     dict(image_processor_type="Qwen2VLImageProcessor", patch_size=4, merge_size=2,
                          size={"shortest_edge": 2000, "longest_edge": 4000}),
                     ("chelsea_landscape_q95.jpg", "coffee_upscale.jpg", "rocket_wide_q30.jpg", "logo_rgba.png",
                      "logo_palette.png")),
}


def photographs():
    """The bundled pictures, at most about 300 pixels wide."""
    import skimage

    root = Path(skimage.__file__).parent / "data"
    files = {"astronaut": "astronaut.png", "chelsea": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg"}
    out = {}
    for name, file in files.items():
        with Image.open(root / file) as picture:
            out[name] = picture.convert("RGB")
    return out


def write_pictures(out: Path):
    photo = photographs()
    astronaut = photo["astronaut"].resize((200, 200), Image.Resampling.LANCZOS)
    astronaut.save(out / "astronaut_square_q90.jpg", quality=90, subsampling="4:4:4")
    astronaut.convert("CMYK").resize((90, 110)).save(out / "astronaut_cmyk.jpg", quality=85)
    chelsea = photo["chelsea"].resize((301, 201), Image.Resampling.LANCZOS)
    chelsea.save(out / "chelsea_landscape_q95.jpg", quality=95, subsampling="4:2:2")
    chelsea.convert("L").save(out / "chelsea_grey.jpg", quality=80)
    coffee = photo["coffee"].crop((100, 0, 365, 400))
    coffee.save(out / "coffee_portrait_420.jpg", quality=80, subsampling="4:2:0", progressive=True)
    coffee.resize((20, 30), Image.Resampling.LANCZOS).save(out / "coffee_upscale.jpg", quality=90)
    photo["rocket"].resize((399, 150), Image.Resampling.LANCZOS).save(out / "rocket_wide_q30.jpg", quality=30)

    # Drawn: the processor blends transparency on white.
    logo = Image.new("RGBA", (97, 75), (250, 240, 20, 0))
    pen = ImageDraw.Draw(logo)
    pen.ellipse((10, 5, 80, 70), fill=(200, 30, 60, 128), outline=(0, 0, 0, 255), width=3)
    pen.rectangle((40, 30, 96, 50), fill=(20, 90, 220, 255))
    logo.save(out / "logo_rgba.png")
    logo.convert("RGB").quantize(8).save(out / "logo_palette.png")


def whole(out, config):
    """The picture of which Qwen2VLImageProcessor gives patches, [3, height, width]."""
    patch, merge = config["patch_size"], config["merge_size"]
    _, rows, columns = out["image_grid_thw"][0]
    patches = np.asarray(out["pixel_values"]).reshape(rows // merge, columns // merge, merge, merge, 3, -1, patch, patch)
    return patches[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", metavar="FOLDER", help="write this folder alone")
    a = parser.parse_args()
    out = a.out
    out.mkdir(parents=True, exist_ok=True)
    if not a.only:
        write_pictures(out)
    clip = {folder: (CLIPImageProcessorPil, CLIP | settings, pictures)
            for folder, (settings, pictures) in FOLDERS.items()}
    for folder, (kind, config, pictures) in (clip | OTHERS).items():
        if a.only not in (None, folder):
            continue
        to = out / folder
        to.mkdir(exist_ok=True)
        (to / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")
        processor = kind.from_pretrained(to)
        for name in pictures:
            with Image.open(out / name) as picture:
                made = processor(picture)
                pixels = whole(made, config) if "image_grid_thw" in made else made["pixel_values"][0]
                print(folder, name, picture.mode, picture.size, pixels.shape, (out / name).stat().st_size)
            save_file({"pixel_values": np.ascontiguousarray(pixels, dtype=np.float32)}, to / f"{name}.safetensors")
            (to / f"{name}.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
