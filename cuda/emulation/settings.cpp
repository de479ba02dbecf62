#include "settings.h"

#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace dp_moe::emulation {

namespace {

int64_t numberOf(const std::string& key, const std::string& value) {
  char* end = nullptr;
  const long long number = std::strtoll(value.c_str(), &end, 10);
  if (value.empty() || *end != '\0' || number < 0) {
    throw std::invalid_argument("expected a number for " + key + ", got '" + value + "'");
  }
  return number;
}

void set(Settings& settings, const std::string& key, const std::string& value) {
  if (key == "no-image") {
    settings.noImage = true;
  } else if (key == "seed") {
    settings.seed = static_cast<uint64_t>(numberOf(key, value));
  } else if (key == "driver-version") {
    settings.driverVersion = static_cast<int>(numberOf(key, value));
  } else if (key == "devices") {
    settings.devices = static_cast<int>(numberOf(key, value));
  } else if (key == "memory") {
    settings.memory = numberOf(key, value);
  } else if (key == "out-of-memory") {
    settings.outOfMemoryAt = numberOf(key, value);
  } else if (key == "launch-refused") {
    settings.launchRefusedAt = numberOf(key, value);
  } else if (key == "launch-fails") {
    settings.launchFailsAt = numberOf(key, value);
  } else if (key == "lost") {
    settings.lostAt = numberOf(key, value);
  } else {
    throw std::invalid_argument("the emulated device has no setting '" + key + "'");
  }
}

void apply(Settings& settings, const std::string& text) {
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    part.erase(0, part.find_first_not_of(' '));
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    set(settings, part.substr(0, equals), equals == std::string::npos ? "" : part.substr(equals + 1));
  }
}

}  // namespace

Settings parseSettings(const std::string& text) {
  Settings settings;
  apply(settings, text);
  return settings;
}

Settings settingsOfEnvironment() {
  Settings settings;
  if (const char* seed = std::getenv("DP_MOE_EMULATION_SEED")) set(settings, "seed", seed);
  if (const char* faults = std::getenv("DP_MOE_EMULATION_FAULTS")) apply(settings, faults);
  return settings;
}

}  // namespace dp_moe::emulation
