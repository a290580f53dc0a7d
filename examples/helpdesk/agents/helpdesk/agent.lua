-- The agent's fields. Its name is the directory's, its system prompt is instructions.md, its tools are those of
-- tools/, its model comes from init.lua: what is left to say is little.
return {
  description = "Answers customers about their orders, and pays refunds by the rules",
  metadata = { team = "support" },
}
