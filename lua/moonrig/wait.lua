-- Turns a native that waits into a function for scripts: its first result says whether the rest are
-- results or an error to raise (the task was cancelled). A C function cannot raise after a yield on
-- both engines; this can.
local function settle(ok, ...)
  if ok then return ... end
  error((...) or "cancelled", 0)
end

---@param native function
---@return function
return function(native)
  return function(...) return settle(native(...)) end
end
