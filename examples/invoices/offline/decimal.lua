-- Exact decimal numbers, as far as invoices need them: read, add, multiply, round to cents. A number is
-- { neg, limbs, scale }: limbs of six digits, least first; the value is the integer divided by 10^scale.
local M = {}
local BASE, DIGITS = 1000000, 6

local function trim(l)
  while #l > 0 and l[#l] == 0 do l[#l] = nil end
  return l
end

local function from_digits(s)
  local l = {}
  for at = #s, 1, -DIGITS do l[#l + 1] = tonumber(s:sub(math.max(1, at - DIGITS + 1), at)) end
  return trim(l)
end

local function to_digits(l)
  if #l == 0 then return "0" end
  local out = { tostring(l[#l]):match "^%d+" }
  for i = #l - 1, 1, -1 do out[#out + 1] = ("%06d"):format(l[i]) end
  return table.concat(out)
end

---Which of its two signs separates the fraction, "." or ","; nil where the number does not show it, as in
---"1,234" (spaces and apostrophes are taken out before).
function M.point(s)
  local commas, points = select(2, s:gsub(",", "")), select(2, s:gsub("%.", ""))
  if commas > 0 and points > 0 then return s:find ",[^.]*$" and "," or "." end
  if commas + points == 0 then return nil end
  local sign, other = ",", "."
  if points > 0 then sign, other = other, sign end
  if commas + points > 1 then return other end -- 1.234.567
  local before, after = s:match "(%d*)[.,](%d*)"
  if #after == 3 and #before <= 3 and before:find "^[1-9]" then return nil end
  return sign
end

---Thousands are set apart in groups of three (or, in India, of two and a last one of three).
local function grouped(whole, sign)
  if not whole:find(sign, 1, true) then return whole:match "^%d*$" end
  local head, rest = whole:match("^(%d%d?%d?)(%" .. sign .. ".*)$")
  for group in (rest or "x"):gmatch("[^" .. sign .. "]*") do
    if group ~= "" and not group:find "^%d%d%d?$" then return nil end
  end
  if not rest or not rest:find("%" .. sign .. "%d%d%d$") or rest:find(sign .. sign, 1, true) then return nil end
  return head .. rest:gsub("%" .. sign, "")
end

---Writes spaces, apostrophes and minus signs of all kinds as plain ones.
function M.plain(text)
  text = text:gsub("\194\160", " "):gsub("\226\128[\135\137\175]", " "):gsub("\226\128\153", "'")
  return (text:gsub("\226\136\146", "-"))
end

---Reads "1234.50", "-3", "1,234.56", "1.234,56", "1 234,56", "1'234.56", "(12.00)", "12.00-"; nil when it is
---no number. point: the sign before the fraction where the number itself does not show it, default ".".
function M.read(text, point)
  local s = M.plain(text):gsub("[%s']", "")
  local neg = false
  if s:match "^%(.*%)$" then s, neg = s:sub(2, -2), true end
  if s:match "^[-+]" then s, neg = s:sub(2), s:sub(1, 1) == "-" end
  if s:match "%-$" then s, neg = s:sub(1, -2), true end
  if s:find "[^%d.,]" or not s:find "%d" then return nil end
  point = M.point(s) or point or "."
  local at = s:find(point, 1, true)
  local whole, fraction = s:sub(1, (at or 0) - 1), at and s:sub(at + 1) or ""
  whole = grouped(whole, point == "." and "," or ".")
  if not whole or fraction:find "%D" or #whole + #fraction > 40 then return nil end
  return { neg = neg, limbs = from_digits(whole .. fraction), scale = #fraction }
end

local function multiply(a, b)
  local l = {}
  for i = 1, #a + #b do l[i] = 0 end
  for i = 1, #a do
    local carry = 0
    for j = 1, #b do
      local v = l[i + j - 1] + a[i] * b[j] + carry
      carry = math.floor(v / BASE)
      l[i + j - 1] = v - carry * BASE
    end
    local k = i + #b
    while carry > 0 do
      local v = l[k] + carry
      carry = math.floor(v / BASE)
      l[k] = v - carry * BASE
      k = k + 1
    end
  end
  return trim(l)
end

function M.mul(a, b)
  return { neg = a.neg ~= b.neg, limbs = multiply(a.limbs, b.limbs), scale = a.scale + b.scale }
end

local function scaled(a, scale)
  return a.scale == scale and a.limbs or multiply(a.limbs, from_digits("1" .. ("0"):rep(scale - a.scale)))
end

local function compare(a, b)
  if #a ~= #b then return #a < #b and -1 or 1 end
  for i = #a, 1, -1 do
    if a[i] ~= b[i] then return a[i] < b[i] and -1 or 1 end
  end
  return 0
end

local function combine(a, b, sign)
  local l, carry = {}, 0
  for i = 1, math.max(#a, #b) do
    local v = (a[i] or 0) + sign * (b[i] or 0) + carry
    carry = math.floor(v / BASE)
    l[i] = v - carry * BASE
  end
  if carry > 0 then l[#l + 1] = carry end
  return trim(l)
end

function M.add(a, b)
  local scale = math.max(a.scale, b.scale)
  local x, y = scaled(a, scale), scaled(b, scale)
  if a.neg == b.neg then return { neg = a.neg, limbs = combine(x, y, 1), scale = scale } end
  if compare(x, y) >= 0 then return { neg = a.neg, limbs = combine(x, y, -1), scale = scale } end
  return { neg = b.neg, limbs = combine(y, x, -1), scale = scale }
end

function M.negate(a) return { neg = not a.neg, limbs = a.limbs, scale = a.scale } end

---In whole cents, half a cent away from zero: an integer below 2^53, or nil when it is larger.
function M.cents(a)
  local d = to_digits(scaled(a, math.max(a.scale, 2)))
  local drop = math.max(a.scale, 2) - 2
  d = ("0"):rep(drop + 1 - #d) .. d
  local kept, rest = d:sub(1, #d - drop), d:sub(#d - drop + 1)
  if #kept > 15 then return nil end
  local v = tonumber(kept) + (rest:match "^[5-9]" and 1 or 0)
  return a.neg and -v or v
end

---"-12.34" of whole cents.
function M.text(cents)
  local v = math.abs(cents)
  return ("%s%d.%02d"):format(cents < 0 and "-" or "", math.floor(v / 100), v % 100)
end

return M
