local M = {}
function helper(x) --! global-write
  return x
end
M.helper = helper
return M
