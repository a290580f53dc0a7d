-- Times in the five fields of cron, "minute hour day month weekday", in UTC. As in cron: when both day and weekday
-- are given, either will do. Weekdays are 0 to 7, Sunday is 0 and 7; names (jan, mon) are not known.
local M = {}

local DAY, YEARS = 86400, 9 -- nine years hold a 29th of February
local fields = { { "minute", 0, 59 }, { "hour", 0, 23 }, { "day", 1, 31 }, { "month", 1, 12 }, { "weekday", 0, 7 } }

local function bad(name, part) return nil, ("%s: %q is no number, range, list or step"):format(name, part) end

---One of the parts between commas into set.
local function part_into(set, part, name, low, high)
  local range, step = part:match "^([^/]+)/(%d+)$"
  range = range or part
  local from, to = range:match "^(%d+)%-(%d+)$"
  if range == "*" then
    from, to = low, high
  elseif range:find "^%d+$" then
    from, to = range, step and high or range
  end
  from, to, step = tonumber(from), tonumber(to), tonumber(step or 1)
  if not from or not to or step < 1 then return bad(name, part) end
  if from < low or to > high or from > to then
    return nil, ("%s: %q is not within %d to %d"):format(name, part, low, high)
  end
  for v = from, to, step do set[v] = true end
  return true
end

---@param text string
---@return table? times, string? why
function M.parse(text)
  local words, times = {}, {}
  for word in text:gmatch "%S+" do words[#words + 1] = word end
  if #words ~= 5 then return nil, ("%q has %d fields, not 5: minute hour day month weekday"):format(text, #words) end
  for i, f in ipairs(fields) do
    local set = {}
    for part in (words[i] .. ","):gmatch "([^,]*)," do
      local ok, why = part_into(set, part, f[1], f[2], f[3])
      if not ok then return nil, why end
    end
    times[f[1]] = set
  end
  if times.weekday[7] then times.weekday[0] = true end
  times.any_day, times.any_weekday = words[3]:sub(1, 1) == "*", words[5]:sub(1, 1) == "*"
  if not M.after(times, 0) then return nil, ("%q never comes"):format(text) end
  return times
end

local function day_fits(times, t)
  local d = os.date("!*t", t)
  if not times.month[d.month] then return false end
  local day, weekday = times.day[d.day] or false, times.weekday[d.wday - 1] or false
  if times.any_day or times.any_weekday then return day and weekday end
  return day or weekday
end

local function minute_fits(times, t)
  local minute = math.floor(t / 60)
  return times.minute[minute % 60] and times.hour[math.floor(minute / 60) % 24]
end

---The first time after t, in seconds since 1970; nil when there is none.
function M.after(times, t)
  local at = (math.floor(t / 60) + 1) * 60
  for _ = 1, YEARS * 366 do
    local next_day = (math.floor(at / DAY) + 1) * DAY
    if day_fits(times, at) then
      while at < next_day do
        if minute_fits(times, at) then return at end
        at = at + 60
      end
    end
    at = next_day
  end
end

---The last time that is not after t.
function M.before(times, t)
  local at = math.floor(t / 60) * 60
  for _ = 1, YEARS * 366 do
    local day = math.floor(at / DAY) * DAY
    if day_fits(times, at) then
      while at >= day do
        if minute_fits(times, at) then return at end
        at = at - 60
      end
    end
    at = day - 60
    if at < 0 then return nil end
  end
end

return M
