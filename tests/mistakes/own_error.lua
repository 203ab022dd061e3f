local function check(value)
  error("it is " .. value)
end
check "wrong"
