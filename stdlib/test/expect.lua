-- What a test expects. Everything takes what is expected first, and then what was observed; a
-- last argument may say in words what it is about.

local native, show = ...
local math, next, pcall, table, tostring, type =
  math, next, pcall, table, tostring, type

--- Strings of several lines are compared line by line, and so shown as they are.
local function shown(value)
  if type(value) == "string" and value:find "\n." then return value end
  return show(value)
end

local function fail(note, message, expected, observed)
  native.failed(note, message, expected and expected(), observed and observed())
end

local function display(value)
  return function() return shown(value) end
end

local function word(text)
  return function() return text end
end

local function same(left, right, seen)
  if left == right or (left ~= left and right ~= right) then return true end
  if type(left) ~= "table" or type(right) ~= "table" then return false end
  -- A pair that is being compared further out: it is the same if all the rest is.
  if seen[left] == right then return true end
  local outer = seen[left]
  seen[left] = right
  for name, value in next, left do
    if not same(value, right[name], seen) then return false end
  end
  for name in next, right do
    if left[name] == nil then return false end
  end
  seen[left] = outer
  return true
end

local expect = {}

--- The same value: for tables the same table.
function expect.equal(expected, observed, note)
  if expected == observed then return observed end
  local message = "the values differ"
  if type(expected) == "table" and type(observed) == "table" and same(expected, observed, {}) then
    message = "two tables that hold the same, but are not one; expect.same compares what they hold"
  elseif type(expected) ~= type(observed) then
    message = ("a %s was expected, and a %s observed"):format(type(expected), type(observed))
  end
  fail(note, message, display(expected), display(observed))
end

--- The same content, however deep.
function expect.same(expected, observed, note)
  if same(expected, observed, {}) then return observed end
  fail(note, "the contents differ", display(expected), display(observed))
end

function expect.truthy(observed, note)
  if observed then return observed end
  fail(note, "neither nil nor false was expected", word "a true value", display(observed))
end

function expect.falsy(observed, note)
  if not observed then return observed end
  fail(note, "nil or false was expected", word "nil or false", display(observed))
end

--- Text that a Lua pattern matches; returns what it captured.
function expect.matches(pattern, observed, note)
  native.text("expect.matches", 1, pattern)
  if type(observed) ~= "string" and type(observed) ~= "number" then
    fail(note, ("text was expected, and a %s observed"):format(type(observed)), word("text matching " .. show(pattern)),
      display(observed))
  end
  local found = table.pack(tostring(observed):match(pattern))
  if found[1] ~= nil then return table.unpack(found, 1, found.n) end
  fail(note, "the text does not match", word("text matching " .. show(pattern)), display(observed))
end

--- A text that another contains, or an item (by content) of a table.
function expect.contains(part, observed, note)
  if type(observed) == "table" then
    for _, value in next, observed do
      if same(part, value, {}) then return observed end
    end
    fail(note, "no item of the table is the same", word("a table with the item " .. show(part)), display(observed))
  end
  native.text("expect.contains", 1, part)
  if type(observed) ~= "string" then
    fail(note, ("a string or a table was expected, and a %s observed"):format(type(observed)),
      word("something with " .. show(part)), display(observed))
  end
  if observed:find(part, 1, true) then return observed end
  fail(note, "the text does not contain it", word("text with " .. show(part)), display(observed))
end

local function is_error(err, code)
  if type(err) == "table" and err.code == code then return true end
  local text = type(err) == "table" and err.message or tostring(err)
  return type(text) == "string" and text:find(code, 1, true) ~= nil
end

--- A function that raises: an error with this code, or with this in its message. Returns the error.
function expect.error(fn, code, note)
  native.callback("expect.error", 1, fn)
  if code ~= nil then native.text("expect.error", 2, code) end
  local ok, err = pcall(fn)
  if ok then
    fail(note, "nothing was raised", word("an error" .. (code and " " .. show(code) or "")), word "no error")
  end
  if code ~= nil and not is_error(err, code) then
    fail(note, "another error was raised", word("an error " .. show(code)), word(tostring(err)))
  end
  return err
end

--- A number that is at most `tolerance` away; a millionth of the number, unless one is given.
function expect.near(expected, observed, tolerance, note)
  native.number("expect.near", 1, expected)
  if tolerance ~= nil then native.number("expect.near", 3, tolerance) end
  tolerance = tolerance or math.abs(expected) * 1e-6
  if type(observed) == "number" and math.abs(expected - observed) <= tolerance then return observed end
  local range = ("%s ± %s"):format(show(expected), show(tolerance))
  fail(note, "the number is too far away", word(range), display(observed))
end

--- Calls `fn` again and again until it returns something true without an error.
function expect.eventually(fn, options, note)
  native.callback("expect.eventually", 1, fn)
  local patience = native.patience("expect.eventually", options)
  local deadline = native.now() + patience.timeout
  local attempts = 0
  local last, returned
  repeat
    attempts = attempts + 1
    local ok, result = pcall(fn)
    if ok and result then return result end
    last, returned = result, ok
    local left = deadline - native.now()
    if left > 0 then native.sleep(math.min(patience.interval, left)) end
  until left <= 0
  local message = ("not so within %g s, after %d attempts"):format(patience.timeout, attempts)
  fail(note, message, word "a true value", returned and display(last) or word(tostring(last)))
end

return expect
