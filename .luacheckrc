-- What a script of Redis may use besides Lua 5.1. Any other global is a misspelling.
std = 'lua51'
read_globals = {
  'KEYS', 'ARGV', 'cjson',
  redis = { fields = { 'acl_check_cmd', 'call', 'error_reply', 'pcall', 'sha1hex' } },
}
max_line_length = 120
-- rights.rs puts it in front of what calls its functions.
files['crates/core/src/store/rights.lua'] = { ignore = { '211' } }
