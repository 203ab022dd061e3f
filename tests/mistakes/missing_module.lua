local helper = require "helper.words"
