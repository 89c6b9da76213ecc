/* SPDX-License-Identifier: Apache-2.0 */
/* emo eval: loss on documents, accuracy on multiple-choice items, scores of tasks. */
#include "cli.h"
#include "dataset.h"
#include "eval_tasks.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const command_text text = {
    "emo eval",
    "--model DIR (--data PATH... | --choices FILE | --tasks FILE) [--mask FILE] [--eval-pool P] [--by domain]",
    "Measures a model: cross-entropy, perplexity and bits per byte on documents, accuracy on multiple-choice items, "
    "or\n"
    "scores of tasks that a JSON file describes, with all experts and with subsets chosen for each task.",
    "A document is scored as end-of-text + text in disjoint windows of --context tokens; bits per byte count all its "
    "bytes.\nOf a prompt and its completion only the completion is scored and its bytes are counted; give a --context "
    "that\nboth fit into, or the windows after the first see nothing of the prompt.\nA choice is scored by its "
    "log-likelihood after the context, divided by its bytes."
    "\nWith --tasks, --keep all,50%,25%,12.5% gives the table of scores over shares of experts: each task's subset is\n"
    "chosen from its validation items, with random ones beside it as control. docs/evaluation.md has the file's form.",
    0};

typedef struct eval_arguments {
    const char *folder, *choices, *pool, *domain, *by;
    string_list data, masks;
    int32_t skip_broken;
    tasks_request tasks;
    cache_arguments cache;
    emo_eval_options options;
} eval_arguments;

/* ---- Documents ---- */

static double mean_loss(const emo_eval_result *r) { return r->tokens > 0 ? r->loss_sum / (double)r->tokens : NAN; }
static double bits_per_byte(const emo_eval_result *r) {
    return r->bytes > 0 ? r->loss_sum / log(2.0) / (double)r->bytes : NAN;
}

static void json_result(json_writer *json, const emo_eval_result *r) {
    json_integer(json, "documents", r->documents);
    json_integer(json, "tokens", r->tokens);
    json_integer(json, "bytes", r->bytes);
    json_number(json, "loss", mean_loss(r));
    json_number(json, "perplexity", exp(mean_loss(r)));
    json_number(json, "bits_per_byte", bits_per_byte(r));
}

static void result_row(text_table *table, const char *name, const emo_eval_result *r) {
    table_cell(table, "%s", name);
    table_cell(table, "%" PRId64, r->documents);
    table_cell(table, "%" PRId64, r->tokens);
    table_cell(table, "%" PRId64, r->bytes);
    table_cell(table, "%.4f", mean_loss(r));
    table_cell(table, "%.2f", exp(mean_loss(r)));
    table_cell(table, "%.4f", bits_per_byte(r));
}

static const char *shown_name(const char *domain) { return domain[0] == '\0' ? "(none)" : domain; }

static void print_documents(const cli *c, const emo_dataset *data, const emo_eval_result *total,
                            const emo_eval_result *domains, int by_domain) {
    int32_t n = emo_dataset_domains(data);
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_result(&json, total);
        json_open(&json, "domains");
        for (int32_t d = 0; d < n; d++) {
            if (domains[d].documents == 0)
                continue;
            json_open(&json, emo_dataset_domain_name(data, d));
            json_result(&json, &domains[d]);
            json_close(&json);
        }
        json_close(&json);
        json_close(&json);
        return;
    }
    text_table table;
    table_begin(&table, 7);
    static const char *const heads[] = {"", "documents", "tokens", "bytes", "loss", "perplexity", "bits/byte"};
    for (size_t i = 0; i < 7; i++)
        table_cell(&table, "%s", heads[i]);
    const char *last = NULL; /* each round prints the next name: there are few domains */
    for (int32_t round = 0; by_domain && round < n; round++) {
        int32_t next = -1;
        for (int32_t d = 0; d < n; d++) {
            const char *name = emo_dataset_domain_name(data, d);
            if ((last == NULL || strcmp(name, last) > 0) &&
                (next < 0 || strcmp(name, emo_dataset_domain_name(data, next)) < 0))
                next = d;
        }
        if (next < 0)
            break;
        last = emo_dataset_domain_name(data, next);
        if (domains[next].documents > 0)
            result_row(&table, shown_name(last), &domains[next]);
    }
    result_row(&table, "all", total);
    table_print(&table, stdout);
}

static emo_status eval_documents(cli *c, const eval_arguments *a, emo_model *model) {
    const emo_tokenizer *tokenizer = NULL;
    emo_dataset *data = NULL;
    emo_eval_result total, *domains = NULL;
    EMO_TRY(model_tokenizer(c, model, a->folder, &tokenizer));
    dataset_request request = {&a->data, tokenizer, NULL, a->domain, a->skip_broken, NULL, NULL};
    EMO_TRY(dataset_open(c, &request, &data));
    domains = calloc((size_t)emo_dataset_domains(data) + 1, sizeof(*domains));
    if (domains == NULL) {
        cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the domains");
        goto done;
    }
    EMO_TRY(emo_eval_documents(model, data, &a->options, &total, domains, NULL, &c->err));
    progress_clear(&c->line);
    print_documents(c, data, &total, domains, a->by != NULL);
done:
    free(domains);
    emo_dataset_release(data);
    return c->err.code;
}

/* ---- Choices ---- */

/* Items and right answers of one domain (NULL: of all) and one kind (NULL: of all). */
typedef struct tally {
    const char *domain, *kind;
    int64_t items, correct;
} tally;

/* The tallies in order of first appearance; there are few of them, so they are searched one by one. */
typedef struct tallies {
    tally *rows;
    size_t count;
} tallies;

static int same_name(const char *a, const char *b) { return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0; }

static int tally_add(tallies *all, const char *domain, const char *kind, int right) {
    size_t i = 0;
    while (i < all->count && !(same_name(all->rows[i].domain, domain) && same_name(all->rows[i].kind, kind)))
        i++;
    if (i == all->count) {
        tally *grown = realloc(all->rows, (all->count + 1) * sizeof(*grown));
        if (grown == NULL)
            return 0;
        all->rows = grown;
        const tally fresh = {domain, kind, 0, 0};
        all->rows[all->count++] = fresh;
    }
    all->rows[i].items++;
    all->rows[i].correct += right;
    return 1;
}

/* By domain, then by kind; what is summed over all of them (NULL) comes last. */
static int compare_names(const char *a, const char *b) {
    if (a == NULL || b == NULL)
        return (a == NULL) - (b == NULL);
    return strcmp(a, b);
}

static int compare_tallies(const void *x, const void *y) {
    const tally *a = x, *b = y;
    int order = compare_names(a->domain, b->domain);
    return order != 0 ? order : compare_names(a->kind, b->kind);
}

static double accuracy(const tally *t) { return t->items > 0 ? (double)t->correct / (double)t->items : NAN; }

/* items, accuracy and kinds of a domain; NULL: of everything. */
static void json_tally(json_writer *json, const tallies *all, const char *domain) {
    tally none = {NULL, NULL, 0, 0};
    const tally *whole = &none;
    for (size_t i = 0; i < all->count; i++) {
        if (all->rows[i].kind == NULL && same_name(all->rows[i].domain, domain))
            whole = &all->rows[i];
    }
    json_integer(json, "items", whole->items);
    json_number(json, "accuracy", accuracy(whole));
    json_open(json, "kinds");
    for (size_t i = 0; i < all->count; i++) {
        const tally *row = &all->rows[i];
        if (row->kind == NULL || !same_name(row->domain, domain))
            continue;
        json_open(json, row->kind);
        json_integer(json, "items", row->items);
        json_number(json, "accuracy", accuracy(row));
        json_close(json);
    }
    json_close(json);
}

static void print_choices(const cli *c, const tallies *all, int by_domain) {
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_tally(&json, all, NULL);
        json_open(&json, "domains");
        for (size_t i = 0; i < all->count; i++) {
            if (all->rows[i].kind != NULL || all->rows[i].domain == NULL)
                continue;
            json_open(&json, all->rows[i].domain);
            json_tally(&json, all, all->rows[i].domain);
            json_close(&json);
        }
        json_close(&json);
        json_close(&json);
        return;
    }
    text_table table;
    table_begin(&table, 4);
    table_cell(&table, "%s", by_domain ? "domain" : "");
    table_cell(&table, "kind");
    table_cell(&table, "items");
    table_cell(&table, "accuracy");
    for (size_t i = 0; i < all->count; i++) {
        const tally *row = &all->rows[i];
        if (row->domain != NULL && !by_domain)
            continue;
        table_cell(&table, "%s", row->domain == NULL ? "all" : shown_name(row->domain));
        table_cell(&table, "%s", row->kind == NULL ? "all" : shown_name(row->kind));
        table_cell(&table, "%" PRId64, row->items);
        table_cell(&table, "%.1f %%", 100 * accuracy(row));
    }
    table_print(&table, stdout);
}

static emo_status eval_choices(cli *c, const eval_arguments *a, emo_model *model) {
    const emo_tokenizer *tokenizer = NULL;
    emo_choices *choices = NULL;
    int32_t *answers = NULL;
    tallies all = {NULL, 0};
    emo_eval_result total;
    EMO_TRY(model_tokenizer(c, model, a->folder, &tokenizer));
    EMO_TRY(emo_choices_open(c->rt, a->choices, &choices, &c->err));
    int64_t n = emo_choices_count(choices);
    answers = calloc((size_t)n + 1, sizeof(*answers));
    if (answers == NULL) {
        cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the answers");
        goto done;
    }
    EMO_TRY(emo_eval_choices(model, choices, &a->options, &total, answers, &c->err));
    for (int64_t i = 0; i < n; i++) {
        emo_choice_item item;
        EMO_TRY(emo_choices_item(choices, i, &item, &c->err));
        if (a->domain != NULL && strcmp(item.domain, a->domain) != 0)
            continue;
        int right = answers[i] == item.answer;
        if (!tally_add(&all, NULL, NULL, right) || !tally_add(&all, NULL, item.kind, right) ||
            !tally_add(&all, item.domain, NULL, right) || !tally_add(&all, item.domain, item.kind, right)) {
            cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the domains");
            goto done;
        }
    }
    if (all.count == 0) {
        cli_fail(c, EMO_E_NOT_FOUND, "%s has no item of the domain %s", a->choices, a->domain);
        goto done;
    }
    qsort(all.rows, all.count, sizeof(*all.rows), compare_tallies);
    progress_clear(&c->line);
    print_choices(c, &all, a->by != NULL);
done:
    free(all.rows);
    free(answers);
    emo_choices_release(choices);
    return c->err.code;
}

/* ---- The command ---- */

/* A pool as a number of experts or as a policy in words. */
static emo_status parse_pool(cli *c, const char *words, emo_pool_policy **out) {
    char fixed[64];
    if (words[0] != '\0' && strspn(words, "0123456789") == strlen(words) && strlen(words) < 20) {
        snprintf(fixed, sizeof(fixed), "fixed:%s", words);
        words = fixed;
    }
    return emo_pool_policy_parse(c->rt, words, out, &c->err);
}

static emo_status evaluate(cli *c, eval_arguments *a) {
    emo_mask *mask = NULL;
    emo_pool_policy *pool = NULL;
    emo_model *model = NULL;
    if (a->masks.count > 0)
        EMO_TRY(emo_mask_load(c->rt, a->masks.items[0], &mask, &c->err));
    if (a->pool != NULL)
        EMO_TRY(parse_pool(c, a->pool, &pool));
    EMO_TRY(cli_load_within(c, a->folder, NULL, &a->cache, &model));
    a->options.mask = mask;
    a->options.pool = emo_pool_policy_kind(pool) == EMO_POOL_NONE ? NULL : pool;
    a->options.progress = cli_progress(c);
    EMO_TRY(a->choices != NULL ? eval_choices(c, a, model) : eval_documents(c, a, model));
    if (c->line.visible)
        cli_cache_report(model);
done:
    emo_model_release(model);
    emo_pool_policy_release(pool);
    emo_mask_release(mask);
    return c->err.code;
}

/* Options that belong to --tasks, and those that do not go with it. */
static const char *misplaced(const cli *c, int tasks) {
    static const char *const own[] = {"keep", "method", "examples", "seed", "random", "limit", "items", "dry-run"};
    static const char *const others[] = {"eval-pool", "domain", "by", "skip-broken"};
    const char *const *names = tasks ? others : own;
    size_t n = tasks ? sizeof(others) / sizeof(others[0]) : sizeof(own) / sizeof(own[0]);
    for (size_t i = 0; i < n; i++) {
        if (cli_given(c, names[i]))
            return names[i];
    }
    return NULL;
}

static void check_and_run(cli *c, eval_arguments *a) {
    int tasks = a->tasks.file != NULL;
    const char *wrong = misplaced(c, tasks);
    if ((a->data.count > 0) + (a->choices != NULL) + tasks != 1)
        cli_usage(c, "give one of --data PATH... (documents), --choices FILE (multiple choice) and --tasks FILE.");
    else if (wrong != NULL)
        cli_usage(c, "--%s %s --tasks.", wrong, tasks ? "does not go with" : "goes with");
    else if (a->folder == NULL && !a->tasks.dry_run)
        cli_usage(c, "--model DIR is required: the model folder.");
    else if (!tasks && a->masks.count > 1)
        cli_usage(c, "one --mask FILE goes with --data and --choices; 'emo mask union' makes one of several.");
    else if (tasks) {
        a->tasks.folder = a->folder;
        a->tasks.masks = &a->masks;
        a->tasks.cache = &a->cache;
        a->tasks.context = a->options.seq_len;
        (void)eval_tasks(c, &a->tasks);
    } else
        (void)evaluate(c, a);
}

int cmd_eval(int argc, char **argv) {
    eval_arguments a;
    memset(&a, 0, sizeof(a));
    const emo_eval_options defaults = EMO_EVAL_OPTIONS_INIT;
    a.options = defaults;
    a.tasks.method = "layerwise";
    a.tasks.random = 1;
    option table[] = {
        {"model", OPTION_STRING, &a.folder, "DIR", "the model folder (not needed with --dry-run)", NULL, 0, 0, 0, 0},
        {"data", OPTION_LIST, &a.data, "PATH", "documents to score", NULL, 0, 0, 0, 0},
        {"choices", OPTION_STRING, &a.choices, "FILE", "or multiple-choice items (.jsonl, .jsonl.gz)", NULL, 0, 0, 0,
         0},
        {"tasks", OPTION_STRING, &a.tasks.file, "FILE", "or tasks, described in JSON", NULL, 0, 0, 0, 0},
        {"mask", OPTION_REPEAT, &a.masks, "FILE", "use only these experts; with --tasks a column for each mask",
         "all experts", 0, 0, 0, 0},
        {"eval-pool", OPTION_STRING, &a.pool, "P",
         "a pool of P routed experts per layer, chosen by each window of text; or a policy such as mass:0.9:4:32",
         "none", 0, 0, 0, 0},
        CACHE_OPTIONS(&a.cache),
        {"domain", OPTION_STRING, &a.domain, "NAME", "only this domain", "all", 0, 0, 0, 0},
        {"by", OPTION_CHOICE, &a.by, "domain", "a row for every domain (JSON always has them)", NULL, 0, 0, 0, 0},
        {"context", OPTION_INT32, &a.options.seq_len, "N", "tokens a window", "the row length of the training", 2,
         1 << 24, 0, 0},
        {"keep", OPTION_STRING, &a.tasks.keep, "LIST",
         "with --tasks: columns, such as all,50%,9: shares of the routed experts, or numbers with the shared ones",
         "all", 0, 0, 0, 0},
        {"method", OPTION_CHOICE, &a.tasks.method, "usage|layerwise|easy-ep|random",
         "how subsets are chosen, as in emo select", "layerwise", 0, 0, 0, 0},
        {"examples", OPTION_INT64, &a.tasks.examples, "N", "choose from so many validation items; 0: all", "0", 0, 9e15,
         0, 0},
        {"seed", OPTION_SEED, &a.tasks.seed, "N", "of the drawn examples and the random subsets", "0", 0, 0, 0, 0},
        {"random", OPTION_INT32, &a.tasks.random, "N", "random subsets beside each chosen one; 0: none", "1", 0, 1000,
         0, 0},
        {"limit", OPTION_INT64, &a.tasks.limit, "N", "items of each task at most; 0: as the file says", "0", 0, 9e15, 0,
         0},
        {"items", OPTION_STRING, &a.tasks.items, "FILE", "write what came of each item, a JSON object a line", NULL, 0,
         0, 0, 0},
        {"dry-run", OPTION_FLAG, &a.tasks.dry_run, NULL, "with --tasks: show what would be run, and a prompt", NULL, 0,
         0, 0, 0},
        {"skip-broken", OPTION_FLAG, &a.skip_broken, NULL, "leave malformed documents out", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    check_and_run(&c, &a);
    return cli_end(&c);
}
