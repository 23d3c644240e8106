"""The page of `derainzoo demo`; stands on inference, whose predictor it puts behind a local address."""
