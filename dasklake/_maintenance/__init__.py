"""What keeps a lake in order: resets, and verifications; each reads every version again."""
