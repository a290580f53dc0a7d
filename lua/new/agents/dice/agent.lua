-- The agent. Its name is the directory's, its system prompt is instructions.md, and what is in tools/ is its tools.
return {
  model = "claude-opus-4-7",
}
