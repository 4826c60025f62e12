"""Networks that turn raw video into frame features."""
