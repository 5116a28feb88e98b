"""An embedding model for notes that have a text and a picture (NoteLLM-2, arXiv 2405.16789), in PyTorch.

Written by `mlrm export --python`. The language model in `llm/` and the vision encoder in `vision/` are classes of
`transformers`; what is between and behind them (connector, late fusion, projection) is here, with its weights in
`head.safetensors`. `config.json` says which parts the model has, how a note becomes a prompt, and how a picture becomes
pixels.

    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    model.embed([{"title": "Sunset", "topics": ["sea"], "content": "At the pier.", "image": "pier.jpg"}])

    model = SentenceTransformer(FOLDER, trust_remote_code=True)
    model.encode([{"title": "Sunset", "image": "pier.jpg"}, "a text alone is a note's content"])

A note is a dictionary with `title`, `topics` (a list), `content` and `image` (a path or a PIL picture), each of which
may be missing; `text` is another name of `content`. A note without a picture is read by its text alone.

From notes to embeddings, for N notes of which P have a picture (S ids, V visual tokens, T = S plus what V adds, widths
v of the vision encoder, d of the language model, e of an embedding):

    picture ─ vision encoder ─▶ features [P, positions, v] ─ connector ─▶ visual tokens [P, V, d]
                       └─▶ c [P, v] ─ mm_projector_latefusion ─▶ u [P, d] ─────────────┐
    prompt ─▶ ids [N, S] ─▶ word embeddings, visual tokens in their place [N, T, d]    │
           ─ language model ─▶ state at the last position h [N, d] ─ gate with u ─ linear ─ L2 norm ─▶ [N, e]

With mICL the state before <IMG_EMB> gives a second, visual embedding by the same gate and projection.
"""
from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, Blip2QFormerConfig, Blip2QFormerModel, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput, cached_file

NOTE_KEYS = ("title", "topics", "content", "text", "image")


class MlrmConfig(PretrainedConfig):
    """What `config.json` holds: `variant`, `layout`, `connector`, `projector`, `fusion`, `head_dim`, `features`,
    `prompts`, `picture`."""

    model_type = "mlrm"


# -- Text: from a note to token ids ---------------------------------------------------------------------------------


def clean(text: str, mark: str) -> str:
    """`text` on one line: line breaks become `mark`, tabs blanks, other control characters go."""
    sign, cleaned = mark.rstrip(), ""
    for line in regex.split("[\n\r\v\f\x85\u2028\u2029]", text):
        line = regex.sub(r"\p{Cc}", "", line.replace("\t", " ")).strip()
        if not line:
            continue
        if cleaned:
            cleaned += mark[len(sign):] if sign and cleaned.endswith(sign) else mark
        cleaned += line
    return cleaned


# A budget of graphemes (characters as people see them) has this many bytes for each.
GRAPHEME_BYTES = 64


def first_graphemes(text: str, most: int) -> str:
    data = text.encode()
    if len(data) <= most:
        return text
    bounded = data[: most * GRAPHEME_BYTES].decode(errors="ignore")
    kept = "".join(itertools.islice(regex.findall(r"\X", bounded), most))
    return kept.rstrip() if len(kept) < len(text) else text


def last_graphemes(text: str, most: int) -> str:
    data = text.encode()
    if len(data) <= most:
        return text
    bounded = data[max(0, len(data) - most * GRAPHEME_BYTES):].decode(errors="ignore")
    kept = "".join(regex.findall(r"\X", bounded)[-most:]) if most else ""
    return kept.lstrip() if len(kept) < len(text) else text


def cut(text: str, most: int) -> str:
    """The longest beginning of at most `most` code points that ends between two graphemes."""
    ends = (match.end() for match in regex.finditer(r"\X", text))
    return text[: max((end for end in ends if end <= most), default=0)].rstrip()


class NoteText:
    """Title, topics and content of a note, cleaned and within the budgets of `settings`."""

    # What gives way first where a prompt is over its tokens.
    CUT_ORDER = ("content", "topics", "title")

    def __init__(self, note: dict, settings: dict):
        def cleaned(text):
            return clean(text or "", settings["sentence_mark"])

        keep = last_graphemes if settings["title_keep"] == "end" else first_graphemes
        self.fields = {
            "title": keep(cleaned(note.get("title")), settings["title_chars"]),
            "content": first_graphemes(cleaned(note.get("content") or note.get("text")), settings["content_chars"]),
        }
        topics = (first_graphemes(cleaned(topic), settings["topic_chars"]) for topic in note.get("topics") or ())
        self.topics = list(itertools.islice(filter(None, topics), settings["topics"]))
        self.separator = settings["topic_separator"]

    def __getitem__(self, field: str) -> str:
        return self.separator.join(self.topics) if field == "topics" else self.fields[field]

    def shorten(self, field: str, most: int):
        """Cuts a field to at most `most` code points, topics as a whole."""
        if field != "topics":
            self.fields[field] = cut(self.fields[field], most)
            return
        while self.topics and len(self["topics"]) > most:
            self.topics.pop()


class NoteTokenizer:
    """Prompts of notes as ids. Note text comes from strangers: whatever it spells, it never becomes one of the
    tokenizer's added tokens (`</s>`, `<IMG>`); those stand where the prompt has them."""

    # Stand for an added token, and for a place where text is broken, while the tokenizer runs. Cleaned text has no
    # control characters, so that none can spell them.
    TOKEN, BREAK = "\x01token\x01", "\x01break\x01"

    def __init__(self, file: str, settings: dict):
        data = json.loads(Path(file).read_text(encoding="utf-8"))
        added = data.get("added_tokens") or []
        data.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        if "dropout" in data["model"]:
            data["model"]["dropout"] = None
        self.tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
        unknown = data["model"].get("unk_id")
        if unknown is None and data["model"].get("unk_token") is not None:
            unknown = self.tokenizer.token_to_id(data["model"]["unk_token"])
        self.unknown = unknown
        self.added = {token["id"]: token["special"] for token in added if token["id"] != unknown}
        marks = [tokenizers.AddedToken(mark, normalized=False, special=True) for mark in (self.TOKEN, self.BREAK)]
        self.tokenizer.add_special_tokens(marks)
        self.token_id, self.break_id = map(self.tokenizer.token_to_id, (self.TOKEN, self.BREAK))
        self.settings = settings

    def prompt(self, note: dict, style: str) -> dict:
        """`ids`, and the index of the image token and of <IMG_EMB> in them (-1 where there is none)."""
        prompt = self.settings["styles"][style]
        text = NoteText(note, self.settings)
        while True:
            pieces, starts, length = [], {}, 0
            for part in prompt["parts"]:
                (kind, value), = part.items()
                piece = text[value] if kind == "field" else value
                if kind == "field":
                    starts[value] = length
                pieces.append(piece)
                length += len(piece) if isinstance(piece, str) else len(self.TOKEN)
            encoded = self._encode(pieces)
            over = len(self.settings["prefix_ids"]) + len(encoded) + prompt["added_positions"] - prompt["max_tokens"]
            if over <= 0 or not self._shorten(text, starts, encoded, over):
                break
        ids = [*self.settings["prefix_ids"], *(token[0] for token in encoded)]
        special = {kind: value for part in prompt["parts"] for kind, value in part.items()}
        index = {kind: ids.index(special[kind]) if kind in special else -1 for kind in ("image", "image_emb")}
        return {"ids": ids, **index}

    @staticmethod
    def _shorten(text: NoteText, starts: dict, encoded: list, over: int) -> bool:
        """Cuts text by `over` tokens or a little more; False when there is none left."""
        field = next((field for field in text.CUT_ORDER if field in starts and text[field]), None)
        if field is None:
            return False
        begin, length = starts[field], len(text[field])
        inside = [start - begin for _, start, _, _ in encoded if begin <= start < begin + length]
        keep = inside[len(inside) - over] if 0 <= len(inside) - over < len(inside) else 0
        text.shorten(field, min(keep, length - 1))
        return True

    def _encode(self, pieces: list) -> list[tuple[int, int, int, bool]]:
        """(id, start, end, whether it is a piece's own id) of each token of `pieces`: texts and ids."""
        breaks: set[int] = set()
        while True:
            encoded = self._run(pieces, breaks)
            # A model may know added tokens as words: their spelling is broken after its first character.
            intruders = [at for at, (id, _, _, given) in enumerate(encoded) if id in self.added and not given]
            new = {encoded[at][1] + 1 for at in intruders if encoded[at][2] - encoded[at][1] > 1} - breaks
            if not new:
                break
            breaks |= new
        for at in reversed(intruders):
            # One of a single character cannot be broken.
            id, start, end, _ = encoded[at]
            if not self.added[id]:
                continue
            encoded[at:at + 1] = [] if self.unknown is None else [(self.unknown, start, end, False)]
        return encoded

    def _run(self, pieces: list, breaks: set[int]) -> list[tuple[int, int, int, bool]]:
        text = "".join(piece if isinstance(piece, str) else self.TOKEN for piece in pieces)
        places = [0, *sorted(breaks), len(text)]
        marked = self.BREAK.join(text[start:end] for start, end in itertools.pairwise(places))
        encoding = self.tokenizer.encode(marked, add_special_tokens=False)
        given = (piece for piece in pieces if not isinstance(piece, str))
        tokens, shift = [], 0
        for id, (start, end) in zip(encoding.ids, encoding.offsets):
            if id == self.break_id:
                shift += len(self.BREAK)
            elif id == self.token_id:
                tokens.append((next(given), start - shift, end - shift, True))
            else:
                tokens.append((id, start - shift, end - shift, False))
        return tokens


# -- Pictures: from a file to pixels --------------------------------------------------------------------------------


def read_picture(image, settings: dict) -> Image.Image:
    """A path or PIL picture as RGB: transparent ones on white, greys of 16 bits by their high byte."""
    picture = image if isinstance(image, Image.Image) else Image.open(image)
    if settings.get("exif_orientation") == "apply":
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def pixel_values(image, settings: dict) -> torch.Tensor:
    """A picture resized, cropped in the middle, rescaled and normalised: [3, height, width] in f32. `settings` has the
    keys of a `preprocessor_config.json`."""
    picture = read_picture(image, settings)
    if settings["do_resize"]:
        (width, height), size = picture.size, settings["size"]
        edge = size.get("shortest_edge")
        if edge is None:
            wanted = (size["width"], size["height"])
        else:
            wanted = (edge, edge * height // width) if width <= height else (edge * width // height, edge)
        picture = picture.resize(wanted, Image.Resampling(settings["resample"]))
    if settings["do_center_crop"]:
        wanted = (settings["crop_size"]["width"], settings["crop_size"]["height"])
        # A picture smaller than the crop stands in its middle, black around it.
        gaps = [crop - length for crop, length in zip(wanted, picture.size)]
        canvas = Image.new("RGB", wanted)
        canvas.paste(picture, tuple((gap + 1) // 2 if gap > 0 else -(-gap // 2) for gap in gaps))
        picture = canvas
    values = (np.asarray(picture).astype(np.float64) * settings["rescale_factor"]).astype(np.float32)
    values = (values - np.float32(settings["image_mean"])) / np.float32(settings["image_std"])
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


# -- Connector and late fusion --------------------------------------------------------------------------------------


def build_projector(kind: str, inputs: int, outputs: int) -> nn.Module:
    """`linear`, or `mlpNx_gelu`: N linear layers with the exact GELU between them."""
    if kind == "linear":
        return nn.Linear(inputs, outputs)
    layers: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(int(kind.removeprefix("mlp").removesuffix("x_gelu")) - 1):
        layers += [nn.GELU(), nn.Linear(outputs, outputs)]
    return nn.Sequential(*layers)


class Resampler(nn.Module):
    """Qwen-VL's: one cross-attention layer from a square of learnt queries to the patches, with positions on both.
    [P, positions, v] → [P, V, d]"""

    def __init__(self, sizes: dict, width: int):
        super().__init__()
        queries, inputs, eps = sizes["num_query_tokens"], sizes["encoder_hidden_size"], sizes["layer_norm_eps"]
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.pos_embed = nn.Parameter(torch.zeros(queries, width), requires_grad=False)
        self.kv_proj = nn.Linear(inputs, width, bias=False) if inputs != width else nn.Identity()
        self.attn = nn.MultiheadAttention(width, sizes["num_attention_heads"], batch_first=True)
        self.ln_q, self.ln_kv, self.ln_post = (nn.LayerNorm(width, eps=eps) for _ in range(3))
        self.proj = nn.Parameter(torch.zeros(width, width))

    def forward(self, features):
        positions = self._positions(features.shape[1])
        values = self.ln_kv(self.kv_proj(features))
        query = (self.ln_q(self.query) + self.pos_embed).expand(features.shape[0], -1, -1)
        out, _ = self.attn(query, values + positions, values, need_weights=False)
        return self.ln_post(out) @ self.proj

    def _positions(self, patches: int):
        """Those of the queries, stretched to the square of the patches."""
        count, width = self.pos_embed.shape
        if count == patches:
            return self.pos_embed
        old, new = round(count**0.5), round(patches**0.5)
        grid = self.pos_embed.reshape(1, old, old, width).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1).reshape(patches, width)


class Gate(nn.Module):
    """Late fusion: z · h + (1 − z) · u, z from both. `vector` has a z for each channel, `scalar` one for each note."""

    def __init__(self, fusion: dict, width: int):
        super().__init__()
        if fusion["kind"] == "vector":
            self.trans_all = nn.Linear(2 * width, width, bias=fusion.get("bias", False))
        else:
            inner = fusion["hidden_size"]
            self.mlp = nn.Sequential(nn.Linear(2 * width, inner), nn.GELU(), nn.Linear(inner, 1))

    def forward(self, state, picture):
        logit = getattr(self, "trans_all", None) or self.mlp
        z = torch.sigmoid(logit(torch.cat([state, picture], dim=-1)))
        return z * state + (1 - z) * picture


# -- The model ------------------------------------------------------------------------------------------------------


@dataclass
class MlrmOutput(ModelOutput):
    """Normalised embeddings [N, e]; `visual_embeddings` with mICL only, of notes without a picture the same as the
    others."""

    embeddings: torch.FloatTensor | None = None
    visual_embeddings: torch.FloatTensor | None = None


class MlrmModel(PreTrainedModel):
    """Language model, vision encoder and head. `from_pretrained` is the way to get one."""

    config_class = MlrmConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: MlrmConfig, llm, vision, tokenizer: NoteTokenizer):
        super().__init__(config)
        self.llm, self.vision, self.note_tokenizer = llm, vision, tokenizer
        # What the language model reads and what it gives may differ in width (OPT-350m).
        width = llm.get_input_embeddings().embedding_dim
        given = getattr(llm.config, "word_embed_proj_dim", None) or llm.config.hidden_size
        if vision is not None:
            vision.requires_grad_(False)
        connector = config.connector
        if connector and connector["kind"] == "qformer":
            sizes = {key: value for key, value in connector.items() if key not in ("kind", "num_query_tokens")}
            qformer = Blip2QFormerConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
            self.query_tokens = nn.Parameter(torch.zeros(1, connector["num_query_tokens"], qformer.hidden_size))
            self.qformer = Blip2QFormerModel(qformer)
        if connector and connector["kind"] == "resampler":
            self.resampler = Resampler(connector, width)
        elif connector:
            inputs = connector["hidden_size"] if connector["kind"] == "qformer" else connector["encoder_hidden_size"]
            self.mm_projector = build_projector(config.projector, inputs, width)
        if config.fusion:
            self.mm_projector_latefusion = nn.Linear(vision.config.hidden_size, given, bias=False)
            self.gate = Gate(config.fusion, given)
        if config.head_dim:
            self.linear = nn.Linear(given, config.head_dim, bias=False)
        # t, by whose exponential cosines are multiplied in training; no embedding depends on it.
        self.temperature = nn.Parameter(torch.zeros(1))
        self.embedding_size = config.head_dim or given

    # -- loading and saving

    HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")
    # What AutoModel adds that says nothing here.
    UNREAD = ("trust_remote_code", "adapter_kwargs", "code_revision", "_from_auto", "_commit_hash")

    @classmethod
    def from_pretrained(cls, name, *args, config=None, dtype=None, attn_implementation=None, **kwargs):
        """The model in a folder, or in a repository of the Hub. `dtype` (default: that of the weights) and
        `attn_implementation` mean what they mean in `transformers`."""
        dtype = kwargs.pop("torch_dtype", None) or dtype
        hub = {key: kwargs.pop(key) for key in cls.HUB_OPTIONS if key in kwargs}
        unknown = sorted(set(kwargs) - set(cls.UNREAD))
        if args or unknown:
            raise TypeError(f"MlrmModel.from_pretrained does not know {', '.join(unknown) or 'further arguments'}")
        if config is None:
            config = MlrmConfig.from_pretrained(name, **hub)
        options = {**hub, "dtype": dtype or config.dtype or "auto"}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        llm_config = AutoConfig.from_pretrained(name, subfolder="llm", **hub)
        llm_config.pad_token_id = config.prompts["pad_id"]
        kinds = getattr(llm_config, "layer_types", None)
        if kinds and "sliding_attention" not in kinds and getattr(llm_config, "sliding_window", 0) is None:
            # Gemma's classes want a window even where no layer has one.
            llm_config.sliding_window = llm_config.max_position_embeddings
        llm = AutoModel.from_pretrained(name, subfolder="llm", config=llm_config, **options)
        vision = None
        if config.picture:
            kind = AutoConfig.from_pretrained(name, subfolder="vision", **hub)
            vision = getattr(transformers, kind.architectures[0]).from_pretrained(name, subfolder="vision", **options)
        tokenizer = NoteTokenizer(cached_file(name, "llm/tokenizer.json", **hub), config.prompts)
        model = cls(config, llm, vision, tokenizer)
        model.load_head(load_file(cached_file(name, "head.safetensors", **hub)))
        model.source = (name, hub)
        return model.to(llm.dtype).eval()

    def head_state(self) -> dict[str, torch.Tensor]:
        """The tensors of everything but the two halves."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(("llm.", "vision."))}

    def load_head(self, tensors: dict[str, torch.Tensor]):
        missing, unexpected = set(self.head_state()) - set(tensors), set(tensors) - set(self.head_state())
        if missing or unexpected:
            raise ValueError(f"head.safetensors: missing {sorted(missing)}, unexpected {sorted(unexpected)}")
        self.load_state_dict(tensors, strict=False)

    def save_pretrained(self, folder, **_):
        """Writes a folder that `from_pretrained` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        self.llm.save_pretrained(folder / "llm")
        if self.vision is not None:
            self.vision.save_pretrained(folder / "vision")
        head = {name: value.float().contiguous() for name, value in self.head_state().items()}
        save_file(head, folder / "head.safetensors")
        name, hub = self.source
        shutil.copy(cached_file(name, "llm/tokenizer.json", **hub), folder / "llm")
        shutil.copy(__file__, folder / "modeling_mlrm.py")

    # -- inputs

    def prepare(self, notes: list) -> dict[str, torch.Tensor]:
        """Notes as what `forward` reads, on the CPU. A string is a note with that content."""
        prompts, pictures, has_picture = [], [], []
        for note in notes:
            if isinstance(note, Image.Image):
                note = {"image": note}
            note = {"content": note} if isinstance(note, str) else note
            if not isinstance(note, dict) or not any(key in note for key in NOTE_KEYS):
                raise ValueError(f"a note is a text or a dictionary with some of {', '.join(NOTE_KEYS)}: {note!r}")
            shown = self.config.picture is not None and note.get("image") is not None
            if shown:
                pictures.append(pixel_values(note["image"], self.config.picture))
            has_picture.append(shown)
            prompts.append(self.note_tokenizer.prompt(note, "picture" if shown else "text"))
        rows = [torch.tensor(prompt["ids"]) for prompt in prompts]
        pad = nn.utils.rnn.pad_sequence
        inputs = {
            "input_ids": pad(rows, batch_first=True, padding_value=self.config.prompts["pad_id"]),
            "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
            "image_index": torch.tensor([prompt["image"] for prompt in prompts]),
            "image_emb_index": torch.tensor([prompt["image_emb"] for prompt in prompts]),
            "has_picture": torch.tensor(has_picture),
        }
        if pictures:
            inputs["pixel_values"] = torch.stack(pictures)
        return inputs

    @torch.inference_mode()
    def embed(self, notes: list, batch_size: int = 32, visual: bool = False) -> torch.Tensor:
        """Embeddings of notes in f32 on the CPU, [N, e]; with `visual` the visual ones (mICL)."""
        found = []
        for start in range(0, len(notes), batch_size):
            inputs = self.prepare(notes[start:start + batch_size])
            output = self(**{name: value.to(self.device) for name, value in inputs.items()})
            embeddings = output.visual_embeddings if visual else output.embeddings
            if embeddings is None:
                raise ValueError(f"variant `{self.config.variant}` has no visual embeddings")
            found.append(embeddings.cpu())
        return torch.cat(found) if found else torch.empty(0, self.embedding_size)

    # -- forward

    def encode_pictures(self, pixels):
        """What the connector reads, [P, positions, v], and the picture as one vector, [P, v]."""
        settings = self.config.features
        # ViT stretches its positions only where it is told to.
        options = {"interpolate_pos_encoding": True} if type(self.vision).__name__ == "ViTModel" else {}
        with torch.no_grad():
            output = self.vision(pixels.to(self.vision.dtype), output_hidden_states=True, **options)
            state = output.hidden_states[settings["layer"]]
            if settings["post_layernorm"]:
                tower = getattr(self.vision, "vision_model", self.vision)
                names = ("post_layernorm", "layernorm", "norm")
                state = next(getattr(tower, name) for name in names if hasattr(tower, name))(state)
        if settings["summary"] == "attention_head":
            # SigLIP has no class token.
            return state, output.pooler_output
        if settings["summary"] == "mean_patch":
            return state, state.float().mean(1).to(state.dtype)
        # Registers, between the class token and the patches, are nobody's to read.
        first = 1 + getattr(self.vision.config, "num_register_tokens", 0)
        patches = state[:, first:]
        positions = patches if settings["positions"] == "patch" else torch.cat([state[:, :1], patches], dim=1)
        return positions, state[:, 0]

    def visual_tokens(self, features):
        """[P, positions, v] → [P, V, d]"""
        if hasattr(self, "resampler"):
            return self.resampler(features)
        if hasattr(self, "qformer"):
            queries = self.query_tokens.expand(features.shape[0], -1, -1)
            features = self.qformer(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        return self.mm_projector(features)

    def forward(self, input_ids, attention_mask, image_index, image_emb_index, has_picture, pixel_values=None):
        """`input_ids`, `attention_mask`: [N, S], padded on the right. `image_index`, `image_emb_index`: [N], -1 where a
        prompt has no such token. `has_picture`: [N], of which P are true. `pixel_values`: [P, 3, side, side]."""
        tokens, picture = iter(()), None
        if pixel_values is not None:
            features, summary = self.encode_pictures(pixel_values)
            if self.config.connector:
                tokens = iter(self.visual_tokens(features))
            if self.config.fusion:
                picture = self.mm_projector_latefusion(summary)
        words = self.llm.get_input_embeddings()(input_ids)
        rows, places = [], []
        for row, length, image, image_emb in zip(
            words, attention_mask.sum(1).tolist(), image_index.tolist(), image_emb_index.tolist(), strict=True
        ):
            row = row[:length]
            if image >= 0:
                # Layout `after` keeps the image token before the visual tokens, `replace` does not.
                keep = image + (self.config.layout == "after")
                row = torch.cat([row[:keep], next(tokens), row[image + 1:]])
            last = len(row) - 1
            rows.append(row)
            places.append([last, image_emb - 1 + len(row) - length if image_emb >= 0 else last])
        mask = nn.utils.rnn.pad_sequence([row.new_ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        states = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        final, visual = torch.tensor(places, device=states.device).unbind(1)
        note = torch.arange(len(rows), device=states.device)
        return MlrmOutput(
            embeddings=self.project(states[note, final], has_picture, picture),
            visual_embeddings=self.project(states[note, visual], has_picture, picture) if self.config.micl else None,
        )

    def project(self, state, has_picture, picture):
        """Gate (of notes with a picture), projection and L2 norm: [N, d] → [N, e] in f32."""
        if picture is not None:
            fused = state.clone()
            fused[has_picture] = self.gate(state[has_picture], picture)
            state = fused
        projected = self.linear(state) if self.config.head_dim else state
        return F.normalize(projected.float(), dim=-1)


class MlrmSentenceModule(nn.Module):
    """The model as the one module of a `SentenceTransformer` (`modules.json`)."""

    save_in_root = True
    INPUTS = ("input_ids", "attention_mask", "image_index", "image_emb_index", "has_picture", "pixel_values")

    def __init__(self, model: MlrmModel):
        super().__init__()
        self.model = model

    @classmethod
    def load(cls, name, *, token=None, cache_folder=None, revision=None, local_files_only=False, **options):
        hub = {"token": token, "cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only}
        return cls(MlrmModel.from_pretrained(name, **hub, **(options.get("model_kwargs") or {})))

    @property
    def modalities(self) -> list:
        """What inputs may be; `message` stands for batches of several kinds."""
        return ["text", "image", ("image", "text"), "message"] if self.model.config.picture else ["text", "message"]

    @property
    def tokenizer(self):
        return self.model.note_tokenizer.tokenizer

    def preprocess(self, inputs, prompt=None, **_):
        if prompt:
            raise ValueError("this model has prompts of its own, which notes are put into; leave `prompt` out")
        return self.model.prepare(inputs)

    # What versions before 5.4 call it.
    tokenize = preprocess

    def forward(self, features, **_):
        output = self.model(**{name: value for name, value in features.items() if name in self.INPUTS})
        features["sentence_embedding"] = output.embeddings
        return features

    def get_embedding_dimension(self) -> int:
        return self.model.embedding_size

    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, folder, **_):
        self.model.save_pretrained(folder)
