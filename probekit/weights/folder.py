"""A folder of safetensors files and its config.json, as transformers or open_clip write it."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checks import is_whole
from ..errors import ProbekitError
from ..files import is_file_name, opened_tensors, read_json

#: Where configs of the families say how many heads and layers there are.
HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
_SIZES = (*HEADS, *LAYERS, "num_decoder_layers", "head_dim", "relative_attention_max_distance")
_FIX = "give a folder that save_pretrained wrote"


def stored_tensors(folder: Path) -> dict[str, tuple[int, Callable[[slice], Tensor]]]:
    """Names, dimensions and readers of all tensors; the files' headers are all that is read.

    A reader gives some of the rows, and raises a ProbekitError where the file is damaged.

    Raises:
        ProbekitError: there are no files, one is missing or damaged, or an index is none.
    """
    index = sorted(folder.glob("*.safetensors.index.json"))
    if index:
        files = [folder / shard for shard in _shards(index[0])]
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"lacks {', '.join(missing)}" if missing else "has no safetensors files"
        raise ProbekitError(f"{folder} {what}; {_FIX}")
    tensors: dict[str, tuple[int, Callable[[slice], Tensor]]] = {}
    for file in files:
        with opened_tensors(file, _FIX) as opened:
            for name in opened.keys():  # noqa: SIM118 (no mapping)
                header = opened.get_slice(name)
                if "F" in header.get_dtype():  # not the position ids that some files hold
                    ndim = len(header.get_shape())
                    tensors[name] = (ndim, partial(_load, file, name))
    return tensors


def _shards(index: Path) -> list[str]:
    """The files that an index lists, all of which lie beside it."""
    content = read_json(index, _FIX)
    places = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(places, Mapping):
        raise ProbekitError(f"{index} has no table weight_map; {_FIX}")
    for name in places.values():
        if not is_file_name(name):
            raise ProbekitError(
                f"{index}: weight_map gives {name!r}, which is no file beside it; {_FIX}"
            )
    return sorted(set(places.values()))


def _load(file: Path, name: str, rows: slice) -> Tensor:
    # A copy, and the file closed at once: pages that stay mapped count as resident memory.
    with opened_tensors(file, _FIX) as opened:
        return opened.get_slice(name)[rows].clone()


def stored_config(folder: Path) -> Mapping[str, Any]:
    """What config.json says, or open_clip's in Hugging Face's words; empty where there is none.

    Raises:
        ProbekitError: it is damaged, or a size in it is no whole number from 1.
    """
    file = folder / "config.json"
    if file.is_file():
        return _checked(file, read_json(file, _FIX))
    file = folder / "open_clip_config.json"
    if not file.is_file():
        return {}
    try:
        towers = read_json(file, _FIX)["model_cfg"]
        vision, text = towers["vision_cfg"], towers["text_cfg"]
        heads = vision["width"] // vision.get("head_width", 64)
        config = {
            "vision_config": {"num_heads": heads, "num_layers": vision["layers"]},
            "text_config": {"num_heads": text["heads"], "num_layers": text["layers"]},
        }
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ProbekitError(f"{file} is no open_clip config: {error!r}; {_FIX}") from None
    return _checked(file, config)


def _checked(file: Path, config: Any) -> Mapping[str, Any]:
    if not isinstance(config, Mapping):
        raise ProbekitError(f"{file} holds no table; {_FIX}")
    for name, value in config.items():
        if name.endswith("_config") and value is not None:
            _checked(file, value)
        # Swin's, a list with a size a stage, are passed over.
        size = value is None or isinstance(value, list) or (is_whole(value) and value >= 1)
        if name in _SIZES and not size:
            raise ProbekitError(f"{file}: {name} is {value!r}, not a whole number from 1; {_FIX}")
    kinds = config.get("layer_types") or []
    if not (isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)):
        raise ProbekitError(f"{file}: layer_types is {kinds!r}, not a list of words; {_FIX}")
    return config
