#include "cuda_runs.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "cuda_processor.h"

namespace dp_moe::conformance {

namespace {

std::string folderOfProgram() { return std::filesystem::read_symlink("/proc/self/exe").parent_path(); }

/// A function that only the emulated driver has, or null.
template <class Function>
Function emulationFunction(const char* name) {
  const char* driver = std::getenv("DP_MOE_CUDA_DRIVER");
  void* library = driver == nullptr ? nullptr : dlopen(driver, RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
}

/// Gives an emulated driver a schedule; false when the driver is a real one.
bool useSeed(int seed) {
  const auto configure = emulationFunction<bool (*)(const char*)>("dpMoeEmulationConfigure");
  return configure != nullptr && configure(("seed=" + std::to_string(seed)).c_str());
}

/// A wrong operand may make a kernel's blocks write the same: only its report counts then.
void refuseRaces(bool refuse) {
  if (const auto set = emulationFunction<void (*)(bool)>("dpMoeEmulationRefuseRaces")) set(refuse);
}

/// While calls are made that may fail: launches are checked one by one.
class Checking {
 public:
  explicit Checking(CudaProcessor& processor) : processor_(processor) { set(true); }
  ~Checking() { set(false); }
  Checking(const Checking&) = delete;
  Checking& operator=(const Checking&) = delete;

 private:
  CudaProcessor& processor_;

  void set(bool checking) {
    processor_.checkEachLaunch(checking);
    refuseRaces(!checking);
  }
};

/// A device that can be opened anew, after a test has made it unusable, under the same Context.
class Reopened final : public Memory {
 public:
  Reopened() { open(); }
  void open() {
    processor_.reset();
    processor_ = std::make_unique<CudaProcessor>(0, DType::float32);
  }
  CudaProcessor& processor() { return *processor_; }

  void* reserve(int64_t bytes) override { return processor_->memory().reserve(bytes); }
  void release(void* address, int64_t bytes) noexcept override { processor_->memory().release(address, bytes); }
  void upload(void* to, const void* from, int64_t bytes) override { processor_->memory().upload(to, from, bytes); }
  void download(void* to, const void* from, int64_t bytes) override { processor_->memory().download(to, from, bytes); }
  void copy(void* to, const void* from, int64_t bytes) override { processor_->memory().copy(to, from, bytes); }
  void fill(void* to, DType dtype, int64_t count, double value) override {
    processor_->memory().fill(to, dtype, count, value);
  }

 private:
  std::unique_ptr<CudaProcessor> processor_;
};

int64_t guardBytesOnCuda([[maybe_unused]] bool emulated) {
#if defined(__SANITIZE_ADDRESS__)
  if (emulated) return 0;  // operands are heap blocks of their exact size
#endif
  return 64;
}

}  // namespace

void runOnCuda(const std::string& driver, const std::vector<int>& seeds, const std::function<void(const Run&)>& suite) {
  if (!driver.empty()) {
    setenv("DP_MOE_CUDA_DRIVER", (folderOfProgram() + "/" + driver).c_str(), 1);
    setenv("DP_MOE_CUDA_FATBIN", (folderOfProgram() + "/dp-moe-emulated.fatbin").c_str(), 1);
  }
  std::map<std::string, std::vector<uint8_t>> seen;
  for (const int seed : seeds) {
    const bool isEmulated = useSeed(seed);
    Reopened device;
    checkedCall = [&](const std::function<void()>& call) {
      const Checking checking(device.processor());
      call();
      device.processor().finish();
    };
    std::optional<Context> context;
    const auto open = [&] {
      const DeviceInfo& info = device.processor().info();
      context.emplace(device.processor().backend(), device,
                      Traits{info.instructionSet, true, isEmulated, guardBytesOnCuda(isEmulated)}, seen);
    };
    open();
    const Run run{std::string(isEmulated ? "emulated CUDA" : "CUDA") + ", schedule " + std::to_string(seed), *context,
                  [&] { device.processor().finish(); },
                  [&] {
                    device.open();
                    open();
                  }};
    suite(run);
  }
}

}  // namespace dp_moe::conformance
