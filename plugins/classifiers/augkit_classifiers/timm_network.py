"""Any network of timm (Wightman 2019) by its name, each a classifier."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from augkit.errors import OptionError
from augkit.interfaces import About, Shape
from augkit.options import option
from augkit_classifiers.network import Network
from augkit_classifiers.weights import Published, TimmWeights

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Timm(Network):
    """Any network of timm with a new output layer: -o model=NAME.

    Input size, mean and standard deviation are those that timm keeps with its weights. Vision
    transformers of fixed size keep it also without weights.
    """

    name = "timm"

    model: str = option("mobilenetv3_small_100", "the name that timm knows it by")

    @classmethod
    def about(cls) -> About:
        """Return what holds for all of them."""
        return About(weights="of each network", source="timm", licence="of each network")

    def check(self) -> None:
        """Raise OptionError for a network that timm does not have."""
        super().check()
        import timm

        if self.model not in {*timm.list_models(), *timm.list_pretrained()}:
            close = difflib.get_close_matches(self.model, timm.list_models(), 3)
            hint = (
                f"; did you mean {', '.join(close)}?" if close else "; timm.list_models() names all"
            )
            raise OptionError(f"timm has no network {self.model!r}{hint}")

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network of this name."""
        import timm

        return timm.create_model(
            self.model, pretrained=False, num_classes=n_classes, in_chans=channels
        )

    def _published(self) -> Published | None:
        found = _config(self.model)
        if not found.get("hf_hub_id"):
            return None
        return TimmWeights(found["hf_hub_id"], found.get("license") or "unknown")

    def body_of(self, network: nn.Module) -> nn.Module:
        """Return a network without its output layers, as timm takes them off."""
        network.reset_classifier(0)  # type: ignore[operator]
        return network

    def _heads(self) -> tuple[str, ...]:
        """Return the output layers; a distilled network has two."""
        found = _config(self.model).get("classifier") or "head"
        return (found,) if isinstance(found, str) else tuple(found)

    def _try(self) -> None:
        """Find out, without computing anything, whether the network takes images of this size.

        Raises OptionError if not.
        """
        import torch

        super()._try()
        channels = 1 if self.weights == "none" else 3
        with torch.device("meta"), torch.inference_mode():
            try:
                network = self.build(2, channels).eval()
                network(torch.empty(2, channels, *self._size()))
            except NotImplementedError:  # what cannot be tried is found out later
                return
            except (RuntimeError, AssertionError, ValueError) as error:
                why = " ".join(str(error).split())[:160]
                raise OptionError(
                    f"{self.model} of timm does not take images of {self.input_size} ({why}). "
                    "Choose another size: -o input_size=WxH"
                ) from error

    def _architecture(self) -> str:
        return f"timm {self.model}"

    def _made_for(self) -> tuple[int, int]:
        _, height, width = _config(self.model)["input_size"]
        return height, width

    def _usual_size(self, shape: Shape, weights: str) -> str:
        if _config(self.model).get("fixed_input_size"):
            weights = "fixed"
        return super()._usual_size(shape, weights)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        found = _config(self.model)
        return tuple(found["mean"]), tuple(found["std"])


@lru_cache
def _config(model: str) -> dict[str, Any]:
    """Return what timm knows of the weights of a network."""
    import timm

    found = timm.get_pretrained_cfg(model)
    if found is None:  # networks without weights
        return {"input_size": (3, 224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return found.to_dict() if hasattr(found, "to_dict") else vars(found)
