"""From a prepared and trained model to a packed one."""

from __future__ import annotations

import warnings
from typing import Literal

from torch import nn
from torch_geometric.nn import MessagePassing, MFConv

from nodebits.core.errors import (
    ConfigError,
    DegenerateSiteWarning,
    NotCalibratedError,
    NothingToQuantizeError,
    UnsupportedLayerWarning,
)
from nodebits.engine.sites import RowQuantizer
from nodebits.engine.use import Ends
from nodebits.methods.prepare import forget_method
from nodebits.models import ModelSpec
from nodebits.nn.layer import QuantLayer
from nodebits.nn.norm import QuantBatchNorm
from nodebits.nn.quantizers import DynamicRowQuantizer, Quantizer
from nodebits.nn.wrappers import copy_module, unwrap, unwrap_children
from nodebits.plan.taking import forget_example, kept_example
from nodebits.runtime.names import name_sites
from nodebits.runtime.packed import PackedModel

Unseen = Literal["error", "float"]


def convert(
    model: nn.Module, spec: ModelSpec | None = None, *, leave_unseen: Unseen = "error"
) -> PackedModel:
    """Freezes every site of a copy of ``model``; no float copy of a quantized tensor remains.

    A linear inside a convolution that ran without it (a target's side where there are no targets)
    stays in float, with a warning.

    Args:
        model: A prepared model, trained or calibrated.
        spec: Description of a named model, which lets :func:`nodebits.load` rebuild it from the
            file alone.
        leave_unseen: What becomes of other layers that saw no data: ``"error"`` refuses,
            ``"float"`` leaves them in float, with a warning that names them.

    Returns:
        The packed model, in evaluation mode.

    Raises:
        NothingToQuantizeError: If ``model`` was not prepared.
        NotCalibratedError: If a layer has seen no data; names it, and says whether it ran.
        ConfigError: If ``leave_unseen`` is neither of the two.
    """
    if leave_unseen not in ("error", "float"):
        raise ConfigError(f"leave_unseen is {leave_unseen!r}: use 'error' or 'float'")
    model = unwrap(model)
    if isinstance(model, PackedModel):
        return model
    example = kept_example(model)  # copies of some models, such as torch.fx's, lose it
    model = copy_module(model).eval()
    forget_method(model)
    forget_example(model)
    unwrap_children(model)
    layers = [m for m in model.modules() if isinstance(m, QuantLayer)]
    if not layers:
        raise NothingToQuantizeError(
            f"{type(model).__name__} has no quantized layers: call nodebits.prepare(model, config) "
            "first"
        )
    _settle_unseen(model, leave_unseen)
    ends = _ends(model)
    for layer in layers:
        layer.freeze()
    for module in model.modules():
        if isinstance(module, QuantBatchNorm):
            module.freeze()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    name_sites(model)
    for path, module in model.named_modules():
        if isinstance(module, RowQuantizer) and path in ends:
            module.ends = ends[path]
    packed = PackedModel(model, spec)
    if example is not None:
        packed.be_ready_for(example)
    return packed


def _ends(model: nn.Module) -> dict[str, Ends | None]:
    """Shares of every site's end codes; warns where codes keep nothing of what passed."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, Quantizer) and module.sampled:
            found[path] = module.sampled.ends(module.recount)
            problem = module.sampled.problem(module.recount)
            if problem is not None and not _zeros_by_nature(model, path):
                warnings.warn(
                    f"site {path!r} ({module.bits} bits, a scale per {module.describe()}) "
                    f"{problem}. Look for outliers in the data, scale its columns alike, or leave "
                    f"the site in float with overrides={{{path!r}: 32}}",
                    DegenerateSiteWarning,
                    stacklevel=3,
                )
    return found


def _zeros_by_nature(model: nn.Module, path: str) -> bool:
    """Whether a site sees zeros whatever the data: MFConv's map of the sums of no neighbours."""
    owner, _, site = f".{path}".rpartition(".lins_l.0.")
    return site == "input" and isinstance(model.get_submodule(owner.lstrip(".")), MFConv)


def _settle_unseen(model: nn.Module, leave_unseen: Unseen) -> None:
    """Leaves layers without a range in float, or refuses them."""
    unseen = {
        path: names
        for path, module in model.named_modules()
        if isinstance(module, QuantLayer) and (names := module.unseen_sites())
    }
    modules = dict(model.named_modules())
    idle = {path for path in unseen if _beside_what_ran(modules, path)}
    refused = [path for path in unseen if path not in idle]
    if refused and leave_unseen == "error":
        raise NotCalibratedError(_refusal(modules, refused[0], unseen[refused[0]][0], len(refused)))
    for path in unseen:
        layer = modules[path]
        assert isinstance(layer, QuantLayer)
        layer.leave_float()
    if unseen:
        warnings.warn(
            f"stay in float, since no data passed them before the model was converted: "
            f"{', '.join(map(repr, unseen))}",
            UnsupportedLayerWarning,
            stacklevel=3,
        )


def _beside_what_ran(modules: dict[str, nn.Module], path: str) -> bool:
    """Whether a layer did not run although the convolution that it is part of did."""
    if _ran(modules[path]):
        return False
    while path:
        path = path.rpartition(".")[0]
        if isinstance(modules[path], MessagePassing):
            return _ran(modules[path])
    return False


def _ran(module: nn.Module) -> bool:
    """Whether data passed a site of ``module``: in this object's life, or before it was stored."""
    layers = [layer for layer in module.modules() if isinstance(layer, QuantLayer)]
    return any(
        site.last_shape is not None or _has_range(site)
        for layer in layers
        for name, site in layer.named_children()
        if isinstance(site, Quantizer) and name not in layer.optional_sites
    )


def _has_range(site: Quantizer) -> bool:
    if site.bits is None or isinstance(site, DynamicRowQuantizer):
        return False  # these need none
    try:
        site.freeze()
    except NotCalibratedError:
        return False
    return True


def _refusal(modules: dict[str, nn.Module], path: str, site: str, count: int) -> str:
    where = f"{path}.{site}" if path else site
    layer = modules[path]
    more = f" ({count} layers are like that)" if count > 1 else ""
    text = f"layer {path or 'model'!r} ({type(layer).__name__}) has no range at {where!r}{more}: "
    if not any(_ran(module) for module in modules.values()):
        return text + (
            "the model saw no data. Train it or call nodebits.calibrate(model, x, edge_index) "
            "before converting it"
        )
    if _ran(layer):
        return text + (
            "the layer ran, but never on data while it was training or calibrated. Call "
            "nodebits.calibrate(model, x, edge_index) with inputs that reach it, or "
            "convert(model, leave_unseen='float') where none can"
        )
    return text + (
        "the layer did not run. Is it a head or branch that these inputs do not take, is its "
        "weight read by other code, or does the forward reach another object in its place? "
        "Calibrate with inputs that take it, or convert(model, leave_unseen='float')"
    )
