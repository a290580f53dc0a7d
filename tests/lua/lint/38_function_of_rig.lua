local rig = require "moonrig"
local http = rig.http
rig.tool { name = "a", description = "x", run = function(input)
  return http.gett(input.url) --! unknown-name
end }
