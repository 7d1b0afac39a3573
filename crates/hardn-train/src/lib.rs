//! Losses, masks, data mix and the training loop
