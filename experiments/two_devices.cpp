// Two devices, "apart:0" and "apart:1", whose memory is the processor's, computed by the processor's kernels: but an operation
// that is handed tensors of two devices is refused, as on accelerators.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/unfold_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/extension.h>
#include <torch/library.h>

static thread_local c10::DeviceIndex current = 0;
static int64_t moves = 0;
constexpr auto KIND = c10::DeviceType::PrivateUse1;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* p = n ? malloc(n) : nullptr;
    return {p, p, &free, c10::Device(KIND, current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free; }
  void copy_data(void* to, const void* from, std::size_t n) const override { memcpy(to, from, n); }
};
static Memory memory;
REGISTER_ALLOCATOR(KIND, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device d) const override { auto was = current; current = d.index() < 0 ? 0 : d.index(); return {KIND, was}; }
  c10::Device getDevice() const override { return {KIND, current}; }
  void setDevice(c10::Device d) const override { current = d.index() < 0 ? 0 : d.index(); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { current = d.index() < 0 ? 0 : d.index(); }
  c10::Stream getStream(c10::Device d) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::Stream getDefaultStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::Stream exchangeStream(c10::Stream s) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};
static Hooks hooks;

static c10::Device settled(std::optional<c10::Device> d) {
  auto index = d && d->has_index() ? d->index() : current;
  return {KIND, index};
}
struct At {
  c10::DeviceIndex was;
  explicit At(c10::Device d) : was(current) { current = d.index(); }
  ~At() { current = was; }
};
static at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> t, std::optional<at::Layout>, std::optional<c10::Device> d,
                        std::optional<bool>, std::optional<at::MemoryFormat> f) {
  At at_(settled(d));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(t), f);
}
static at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> t, std::optional<at::Layout>,
                                std::optional<c10::Device> d, std::optional<bool>) {
  At at_(settled(d));
  return at::detail::empty_strided_generic(size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(t));
}
static at::Tensor plain(const at::Tensor& x) {
  return at::from_blob(x.data_ptr(), x.sizes(), x.strides(), at::TensorOptions().dtype(x.scalar_type()));
}
static at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.device() != to.device()) moves++;
  if (to.numel()) plain(to).copy_(plain(from));
  return to;
}
static at::Tensor copy_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) const_cast<at::Tensor&>(to).resize_(from.sizes());
  return copy_from(from, to, false);
}
static at::Scalar scalar(const at::Tensor& x) { return plain(x).item(); }
static at::Tensor strided(const at::Tensor& x, c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(x, size, stride, offset);
}
static at::Tensor viewed(const at::Tensor& x, c10::IntArrayRef size) { return at::native::view(x, size); }
static at::Tensor aliased(const at::Tensor& x, c10::IntArrayRef size, c10::IntArrayRef stride) {
  return at::native::_reshape_alias(x, size, stride);
}
static at::Tensor unfolded(const at::Tensor& x, int64_t dim, int64_t size, int64_t step) { return at::native::unfold(x, dim, size, step); }
static const at::Tensor& resized(const at::Tensor& x, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  At at_(x.device());
  auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  auto* impl = x.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(sizes);
  auto need = (impl->numel() + impl->storage_offset()) * x.element_size();
  if (impl->unsafe_storage().nbytes() < (size_t)need) {
    auto held = memory.allocate(need);
    impl->unsafe_storage().set_data_ptr(std::move(held));
    impl->unsafe_storage().set_nbytes(need);
  }
  return x;
}
static void strict(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  std::optional<c10::Device> home;
  auto look = [&](const at::Tensor& x) {
    if (!x.defined()) return;
    if (x.device().is_cpu() && x.dim() == 0) return;
    TORCH_CHECK(!home || *home == x.device(), op.schema().operator_name(), ": tensors on ", *home, " and ", x.device());
    home = x.device();
  };
  auto arguments = torch::jit::last(stack, op.schema().arguments().size());
  for (const auto& one : arguments) {
    if (one.isTensor()) look(one.toTensor());
    else if (one.isTensorList()) for (const at::Tensor& x : one.toTensorList()) look(x);
    else if (one.isOptionalTensorList()) {
      // indices on the processor are taken by accelerators too
      for (const std::optional<at::Tensor>& x : one.toOptionalTensorList()) if (x && x->defined() && !x->device().is_cpu()) look(*x);
    }
  }
  if (home) { At at_(*home); at::native::cpu_fallback(op, stack); }
  else at::native::cpu_fallback(op, stack);
}
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_and_resize);
  m.impl("_local_scalar_dense", &scalar);
  m.impl("as_strided", &strided);
  m.impl("view", &viewed);
  m.impl("_reshape_alias", &aliased);
  m.impl("unfold", &unfolded);
  m.impl("resize_", &resized);
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&strict>()); }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("moves", [] { return moves; });
}
