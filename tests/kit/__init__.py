"""What tests share: a scripted upstream and certificates."""
