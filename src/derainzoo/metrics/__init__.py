"""Quality of a restored image under the protocols that papers use. Importing this imports no torch; measuring does."""

from derainzoo.metrics.protocol import PROTOCOLS, Protocol, get_protocol, measure, measure_each, metric_names

__all__ = ["PROTOCOLS", "Protocol", "get_protocol", "measure", "measure_each", "metric_names"]
