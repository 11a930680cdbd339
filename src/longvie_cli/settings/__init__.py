"""What a user can set, checked before anything heavy is loaded: requests, presets, prompts."""
