/* The C interface from C: checks DEGREES SCALED, two files of tests/lite/model_files.py.
 * Prints what failed; the last line is the resident memory in KiB where the system tells it. */
#include <nodebits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;

static void check_that(int good, const char* what, int line) {
  if (good) return;
  ++failures;
  printf("line %d: %s (%s: %s)\n", line, what, nb_error_kind(), nb_error());
}
#define CHECK(condition) check_that((condition), #condition, __LINE__)

static nb_array array(int dtype, int ndim, int64_t n0, int64_t n1, const void* data) {
  nb_array made;
  memset(&made, 0, sizeof(made));
  made.dtype = dtype;
  made.ndim = ndim;
  made.shape[0] = n0;
  made.shape[1] = n1;
  made.data = data;
  return made;
}

static void null_pointers(const char* path) {
  nb_model* model = NULL;
  nb_run* run = NULL;
  nb_graph* graph = NULL;
  nb_array out;
  nb_input_info info;
  const nb_array some = array(NB_INT64, 2, 2, 0, NULL);
  CHECK(nb_load(NULL, 0, &model) == NB_ERROR_ARGUMENT && model == NULL);
  CHECK(nb_load(path, 0, NULL) == NB_ERROR_ARGUMENT);
  CHECK(nb_load(path, 64, &model) == NB_ERROR_ARGUMENT && strstr(nb_error(), "64") != NULL);
  CHECK(nb_load_memory(NULL, 9, 0, &model) == NB_ERROR_ARGUMENT);
  CHECK(nb_load_memory(NULL, 0, 0, &model) == NB_ERROR_FILE);
  CHECK(nb_run_new(NULL, &run) == NB_ERROR_ARGUMENT && run == NULL);
  CHECK(nb_set_threads(NULL, 1) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_input(NULL, "x", &some) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_features(NULL, &some) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_graph(NULL, NULL, NULL) == NB_ERROR_ARGUMENT);
  CHECK(nb_execute(NULL) == NB_ERROR_ARGUMENT);
  CHECK(nb_output(NULL, 0, &out) == NB_ERROR_ARGUMENT);
  CHECK(nb_predict(NULL, NULL, 0, NULL, 0) == NB_ERROR_ARGUMENT);
  CHECK(nb_input(NULL, 0, &info) == NB_ERROR_ARGUMENT);
  CHECK(nb_graph_coo(NULL, 1, 1, &graph) == NB_ERROR_ARGUMENT && graph == NULL);
  CHECK(nb_graph_coo(&some, 1, 1, NULL) == NB_ERROR_ARGUMENT);
  CHECK(nb_graph_csr(&some, NULL, 1, &graph) == NB_ERROR_ARGUMENT);
  CHECK(nb_num_inputs(NULL) == 0 && nb_num_outputs(NULL) == 0);
  CHECK(strcmp(nb_model_header(NULL), "") == 0);
  CHECK(nb_isa_level(-1, NULL) == NULL && nb_isa_level(99, NULL) == NULL);
  CHECK(nb_set_isa(NULL) == NB_ERROR_ARGUMENT);
  nb_interrupt(NULL);
  nb_model_free(NULL);
  nb_graph_free(NULL);
  nb_run_free(NULL);
}

static void bad_arrays(nb_run* run) {
  const float x[3] = {1, 2, 3};
  nb_array bad = array(NB_FLOAT32, 1, 3, 0, x);
  CHECK(nb_set_input(run, "nothing", &bad) == NB_ERROR_ARGUMENT);
  CHECK(strcmp(nb_error_kind(), "UnknownNameError") == 0 && strstr(nb_error(), "edge_index"));
  CHECK(nb_set_input(run, NULL, &bad) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_input(run, "x", NULL) == NB_ERROR_ARGUMENT);
  bad.dtype = 17;
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT && strstr(nb_error(), "17"));
  bad.dtype = NB_FLOAT32;
  bad.ndim = 9;
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT);
  bad.ndim = -1;
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT);
  bad = array(NB_FLOAT32, 1, -3, 0, x);
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT);
  bad = array(NB_FLOAT32, 2, (int64_t)1 << 40, (int64_t)1 << 40, x);
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT);
  bad = array(NB_FLOAT32, 1, 3, 0, NULL);
  CHECK(nb_set_input(run, "x", &bad) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_threads(run, 0) == NB_ERROR_ARGUMENT);
}

/* Handles are freed while others still need what is behind them. */
static void any_order(const char* path) {
  const float x[3] = {1, 2, 3};
  const int32_t edges[8] = {0, 1, 2, 2, 1, 1, 0, 1};
  const int32_t indptr[4] = {0, 1, 4, 4}, indices[4] = {2, 0, 1, 2};
  const float expected[3] = {2, 5, 3};
  nb_model* model;
  nb_run* run;
  nb_graph* graph;
  nb_array out;
  const nb_array features = array(NB_FLOAT32, 1, 3, 0, x);
  const nb_array coo = array(NB_INT32, 2, 2, 4, edges);
  const nb_array rows = array(NB_INT32, 1, 4, 0, indptr), cols = array(NB_INT32, 1, 4, 0, indices);
  CHECK(nb_load(path, 0, &model) == NB_OK);
  CHECK(nb_run_new(model, &run) == NB_OK);
  CHECK(strstr(nb_model_header(model), "\"plan\"") != NULL);
  nb_model_free(model);
  CHECK(nb_execute(run) == NB_ERROR_ARGUMENT && strstr(nb_error(), "missing"));
  CHECK(nb_output(run, 0, &out) == NB_ERROR_ARGUMENT);
  CHECK(nb_set_features(run, &features) == NB_OK);
  CHECK(nb_set_input(run, "edge_index", &coo) == NB_OK);
  CHECK(nb_execute(run) == NB_OK && nb_output(run, 0, &out) == NB_OK);
  CHECK(out.dtype == NB_FLOAT32 && out.ndim == 1 && out.shape[0] == 3);
  CHECK(memcmp(out.data, expected, sizeof(expected)) == 0);
  CHECK(nb_output(run, 1, &out) == NB_OK && out.dtype == NB_INT64);
  CHECK(nb_output(run, 2, &out) == NB_ERROR_ARGUMENT &&
        nb_output(run, -1, &out) == NB_ERROR_ARGUMENT);
  for (int form = 0; form < 2; ++form) {
    CHECK((form ? nb_graph_csr(&rows, &cols, 3, &graph) : nb_graph_coo(&coo, 3, 3, &graph)) ==
          NB_OK);
    CHECK(nb_set_graph(run, form ? "edge_index" : NULL, graph) == NB_OK);
    nb_graph_free(graph);
    for (int turn = 0; turn < 2; ++turn) {
      CHECK(nb_execute(run) == NB_OK && nb_output(run, 0, &out) == NB_OK);
      CHECK(memcmp(out.data, expected, sizeof(expected)) == 0);
    }
  }
  nb_interrupt(run);
  CHECK(nb_execute(run) == NB_ERROR_INTERRUPTED);
  CHECK(nb_execute(run) == NB_OK);
  bad_arrays(run);
  CHECK(nb_execute(run) == NB_OK && nb_output(run, 0, &out) == NB_OK);
  CHECK(memcmp(out.data, expected, sizeof(expected)) == 0);
  nb_run_free(run);
}

static nb_model* shared;

/* relu(x * scale + shift) of other numbers in every thread; scale and shift are in the file. */
static void* work(void* seed) {
  nb_run* run;
  enum { ROWS = 500 };
  static const float scale[3] = {0.5f, 1.25f, 2.0f}, shift[3] = {-1.0f, 0.0f, 1.0f};
  float x[3 * ROWS];
  CHECK(nb_run_new(shared, &run) == NB_OK);
  for (int turn = 0; turn < 50; ++turn) {
    nb_array in, out;
    int wrong = 0;
    for (int i = 0; i < 3 * ROWS; ++i) x[i] = (float)((i * 31 + turn * 7 + *(int*)seed) % 101 - 50);
    in = array(NB_FLOAT32, 2, ROWS, 3, x);
    CHECK(nb_predict(run, &in, 1, &out, 1) == NB_OK);
    for (int i = 0; i < 3 * ROWS; ++i) {
      const float expected = x[i] * scale[i % 3] + shift[i % 3];
      wrong += ((const float*)out.data)[i] != (expected > 0 ? expected : 0);
    }
    CHECK(wrong == 0);
  }
  nb_run_free(run);
  return NULL;
}

static void threads(const char* path) {
  pthread_t all[6];
  int seeds[6];
  CHECK(nb_load(path, 0, &shared) == NB_OK);
  for (int i = 0; i < 6; ++i) {
    seeds[i] = i;
    pthread_create(all + i, NULL, work, seeds + i);
  }
  for (int i = 0; i < 6; ++i) pthread_join(all[i], NULL);
  nb_model_free(shared);
}

static void instruction_sets(void) {
  int available = 0, found = 0;
  for (int i = 0; nb_isa_level(i, &available) != NULL; ++i) {
    const nb_status status = nb_set_isa(nb_isa_level(i, NULL));
    CHECK(available ? status == NB_OK : status == NB_ERROR_ARGUMENT);
    if (available) CHECK(strcmp(nb_isa(), nb_isa_level(i, NULL)) == 0);
    found += available;
  }
  CHECK(found > 0);
}

int main(int argc, char** argv) {
  char line[256];
  FILE* status;
  if (argc != 3) return 2;
  CHECK(strcmp(nb_error(), "") == 0);
  CHECK(nb_api_version() == NB_API_VERSION && nb_version()[0] != 0);
  null_pointers(argv[1]);
  any_order(argv[1]);
  threads(argv[2]);
  instruction_sets();
  status = fopen("/proc/self/status", "r");
  while (status != NULL && fgets(line, sizeof(line), status) != NULL) {
    if (strncmp(line, "VmHWM:", 6) == 0) printf("resident %d\n", atoi(line + 6));
  }
  if (status != NULL) fclose(status);
  return failures != 0;
}
