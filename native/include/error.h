#pragma once

#include <stdexcept>
#include <string>

namespace dp_moe {

/// A failure that reaches JavaScript as an Error with this `code` (one of ErrorCode in lib/errors.ts).
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

}  // namespace dp_moe
