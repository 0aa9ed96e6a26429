"""Low-rank adapters (Hu et al. 2022) of a text-to-image pipeline's U-Net, trained with peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.networks import finite, seeded
from safegen.backends.undisturbed import failing, undisturbed
from safegen.errors import BackendError, UsageError
from safegen.progress import progress

if TYPE_CHECKING:
    import torch

    from safegen.backends.diffusion.pipeline import Options

__all__ = ["adapter_weights", "put_adapter", "size_of", "train_adapter"]

_NAME = "trained"
_ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
_ADVICE = "try a smaller train_learning_rate, such as 1e-5"
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def size_of(pipe: Any, options: Options) -> int:
    """The pixels, square, at which images are learned. Raises: UsageError for a pipeline whose
    adapters cannot be trained here."""
    if not all(getattr(pipe, part, None) is not None for part in _PARTS) or not hasattr(
        pipe.unet, "add_adapter"
    ):
        raise UsageError(
            f"train_rank: {type(pipe).__name__} has not the parts of Stable Diffusion "
            f"({', '.join(_PARTS)}), for which adapters can be trained here"
        )
    import diffusers

    library: Any = diffusers
    predicted = getattr(pipe.scheduler.config, "prediction_type", None)
    if (
        not isinstance(pipe.unet, library.UNet2DConditionModel)
        or pipe.unet.config.addition_embed_type is not None
        or predicted not in ("epsilon", "v_prediction")
    ):
        raise UsageError(
            f"train_rank: {type(pipe).__name__} is not trained as Stable Diffusion 1 and 2 are (a "
            "UNet2DConditionModel of text alone that says epsilon or v_prediction): train its "
            "adapter elsewhere, and give it as lora"
        )
    if options.height is not None and options.width is not None:
        return min(options.height, options.width)
    side = pipe.unet.config.sample_size
    if not isinstance(side, int):
        raise UsageError("train_rank: the pipeline's images are not square: say height and width")
    return int(side * pipe.vae_scale_factor)


def put_adapter(
    pipe: Any, options: Options, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Give the U-Net an adapter: new, or with these weights. Raises: BackendError."""
    import torch
    from peft import LoraConfig, set_peft_model_state_dict

    rank = options.train_rank
    assert rank is not None
    with undisturbed(), failing("adding the adapter", "peft"):
        config = LoraConfig(r=rank, lora_alpha=options.train_alpha, target_modules=_ATTENTION)
        pipe.unet.add_adapter(config, adapter_name=_NAME)
        for parameter in _learned(pipe):
            parameter.data = parameter.data.float()  # small steps are lost in half precision
        if weights is not None:
            if weights.keys() != adapter_weights(pipe).keys():
                raise BackendError("the adapter's weights are not of this pipeline: fit it again")
            if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
                raise BackendError("the adapter's weights are not finite: fit it again")
            set_peft_model_state_dict(pipe.unet, dict(weights), adapter_name=_NAME)
        names, scales = [_NAME], [1.0]
        if options.lora is not None:
            names, scales = ["given", _NAME], [options.lora_scale, 1.0]
        pipe.unet.set_adapters(names, scales)


def _learned(pipe: Any) -> list[Any]:
    """The parameters of the trained adapter."""
    return [p for n, p in pipe.unet.named_parameters() if f".{_NAME}." in n]


def adapter_weights(pipe: Any) -> dict[str, torch.Tensor]:
    """The weights of the trained adapter."""
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(pipe.unet, adapter_name=_NAME))


def train_adapter(
    pipe: Any,
    pixels: np.ndarray,
    texts: Sequence[str],
    options: Options,
    device: torch.device,
    seed: int,
) -> list[float]:
    """Train a new adapter on images, uint8 (n, height, width, channels), and their prompts.

    The loss per step, at most 500 numbers. Raises: BackendError when it is not finite.
    """
    import torch

    losses: list[float] = []
    with (
        progress("training the adapter", options.train_steps, "steps") as advance,
        undisturbed(),
        seeded(seed, device),
        failing("training the adapter", "diffusers"),
    ):
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False)
        put_adapter(pipe, options)
        learned = _learned(pipe)
        for parameter in learned:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(learned, options.train_learning_rate)
        colour = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels[..., :3]
        images = torch.from_numpy(np.ascontiguousarray(colour.transpose(0, 3, 1, 2)))
        import diffusers

        library: Any = diffusers
        scheduler = library.DDPMScheduler.from_config(pipe.scheduler.config)
        velocity = scheduler.config.prediction_type == "v_prediction"
        for step in range(options.train_steps):
            at = torch.randint(0, len(images), (options.train_batch_size,))
            clean = (images[at].to(device).float() / 127.5 - 1).to(pipe.vae.dtype)
            with torch.no_grad():
                latent = pipe.vae.encode(clean).latent_dist.sample()
                latent = latent * pipe.vae.config.scaling_factor
                words = pipe.tokenizer(
                    [texts[i] for i in at.tolist()],
                    padding="max_length",
                    max_length=pipe.tokenizer.model_max_length,
                    truncation=True,
                    return_tensors="pt",
                )
                told = pipe.text_encoder(words.input_ids.to(device))[0]
            latent = latent.float()
            noise = torch.randn(latent.shape).to(device)
            times = torch.randint(0, scheduler.config.num_train_timesteps, (len(latent),)).to(
                device
            )
            noisy = scheduler.add_noise(latent, noise, times)
            wanted = scheduler.get_velocity(latent, noise, times) if velocity else noise
            half = pipe.unet.dtype
            said = pipe.unet(noisy.to(half), times, encoder_hidden_states=told.to(half)).sample
            loss = torch.nn.functional.mse_loss(said.float(), wanted)
            losses.append(finite(loss.item(), step + 1, _ADVICE))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimizer.step()
            advance(1)
        finite(sum(float(p.double().abs().sum()) for p in learned), len(losses), _ADVICE)
    every = -(-len(losses) // 500)
    return [
        sum(losses[i : i + every]) / len(losses[i : i + every])
        for i in range(0, len(losses), every)
    ]
