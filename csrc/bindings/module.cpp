// The extension module.
#include "bindings/define.h"
#include "plan/plan.h"
#include "run/dispatch.h"
#include "run/recode.h"

namespace {

void raise(const char* type, const char* message) {
  const nb::object error = nb::module_::import_("nodebits.core.errors").attr(type);
  PyErr_SetString(error.ptr(), message);
}

// A kind that is no error of the library is one of Python's own.
void raise_plan(const nodebits::PlanError& e) {
  if (e.kind == "KeyboardInterrupt") return PyErr_SetString(PyExc_KeyboardInterrupt, e.what());
  raise(e.kind == "Refused" ? "PlanRefused" : e.kind.c_str(), e.what());
}

}  // namespace

NB_MODULE(_kernels, m) {
  using namespace nodebits;
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const ShapeError& e) {
      raise("ShapeError", e.what());
    } catch (const GraphError& e) {
      raise("GraphError", e.what());
    } catch (const CodingError& e) {
      raise("CodingError", e.what());
    } catch (const PlanError& e) {
      raise_plan(e);
    }
  });
  // Models that live as long as the process hold plans, which are no leaks.
  nb::set_leak_warnings(false);
  m.doc() = "Compiled operators. Use them through nodebits.ops, which allocates and checks.";
  m.def("isa_levels", [] {
    std::vector<std::tuple<std::string, bool, std::string>> out;
    for (const IsaLevel& l : isa_levels()) out.emplace_back(l.name, l.available, l.reason);
    return out;
  });
  m.def("codings", [] {
    std::vector<std::string> names;
    for (const char* name : coding_names()) names.emplace_back(name);
    return names;
  });
  m.def("isa", [] { return std::string(current_isa()); });
  m.def("set_isa", [](const std::string& name) { return set_isa(name); });
  define_rows(m);
  define_attention(m);
  define_products(m);
  define_reductions(m);
  define_pairs(m);
  define_gates(m);
  define_outer(m);
  define_graphs(m);
  define_fused(m);
  define_sampling(m);
  define_plans(m);
  define_guard(m);
  define_changing(m);
}
