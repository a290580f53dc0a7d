-- "Did you mean": the name of a list that a misspelt one is closest to.

---Edits (insert, remove, replace, swap neighbours) from a to b.
local function distance(a, b)
  local before, last, now = nil, {}, nil
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    now = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      now[j] = math.min(last[j] + 1, now[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        now[j] = math.min(now[j], before[j - 2] + 1)
      end
    end
    before, last = last, now
  end
  return last[#b]
end

---@param name string
---@param known string[]
---@return string? closest nil when none is close
return function(name, known)
  local best, least
  if type(name) ~= "string" or #name > 64 then return nil end
  for _, k in ipairs(known) do
    local d = distance(name:lower(), k:lower())
    if d <= math.max(1, math.floor(math.min(#name, #k) / 3)) and (not least or d < least) then best, least = k, d end
  end
  return best
end
