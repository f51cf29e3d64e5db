"""What several stages read: images and shards, the CLIP and its texts, class sets, the doors to masks."""
