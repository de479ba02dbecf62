#pragma once

#include <cstdint>
#include <string>

namespace dp_moe::emulation {

/// How the emulated device behaves; see docs/cuda.md. The n-th means counted from 1 after the settings were made, and 0
/// never.
struct Settings {
  uint64_t seed = 1;
  int driverVersion = 13000;
  int devices = 1;
  int64_t memory = int64_t{4} << 30;
  bool noImage = false;         // the module has nothing for this device
  int64_t outOfMemoryAt = 0;    // the n-th allocation finds no memory
  int64_t launchRefusedAt = 0;  // the n-th launch is refused, and the next is not
  int64_t launchFailsAt = 0;    // the n-th launch fails when it runs, which ends the context
  int64_t lostAt = 0;           // at the n-th call the device is lost
};

/// Of a text "devices=0, memory=1000000, no-image, out-of-memory=3, launch-refused=2, launch-fails=2, lost=40,
/// driver-version=12040, seed=2", each optional. Throws std::invalid_argument with what is wrong.
Settings parseSettings(const std::string& text);

/// Of the environment variables DP_MOE_EMULATION_SEED and DP_MOE_EMULATION_FAULTS (as parseSettings).
Settings settingsOfEnvironment();

}  // namespace dp_moe::emulation
