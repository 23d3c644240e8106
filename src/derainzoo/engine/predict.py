"""The task `predict`, on one device or several. Lightning is loaded only for several: it would be most of a photo's wait."""

from omegaconf import DictConfig


def predict(cfg: DictConfig) -> None:
    """Remove rain from what `input` names."""
    if cfg.trainer.devices == 1 and cfg.trainer.num_nodes == 1:
        from derainzoo.inference.predict import predict as alone

        alone(cfg)
    else:
        from derainzoo.engine.share import predict_together

        predict_together(cfg)
