/* SPDX-License-Identifier: Apache-2.0 */
/* What test_cpp_program.sh does with the emo program, through the C++ binding: a tokenizer, a training, a subset, a
 * text. usage: cpp_program DOCUMENTS CONFIG NOTE OUT_FOLDER (CONFIG with the tokenizer's numbers) */
#include <emo.hpp>

#include <fstream>
#include <iostream>
#include <iterator>

namespace {
std::string read(const char *path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
} // namespace

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    try {
        const std::string out = argv[4];
        emo::runtime_options one;
        one.threads = 1;
        const emo::runtime rt = emo::runtime::create(one);
        emo::tokenizer_train_options learn;
        learn.vocab_size = 280;
        emo::texts documents = emo::texts::open(rt, argv[1]);
        emo::tokenizer tokenizer = emo::tokenizer::train(rt, learn, documents.reader());
        std::ofstream(out + "/tok.json", std::ios::binary) << tokenizer.to_json();
        const emo::dataset data = emo::dataset::open(rt, argv[1], tokenizer);

        emo::model_create_options create;
        create.seed = 3;
        emo::model model = emo::model::create(rt, read(argv[2]), create);
        model.set_tokenizer(tokenizer);
        const emo::pool_policy pool = emo::pool_policy::uniform(rt, 2, 8);
        emo::train_options o;
        o.pool = pool.get();
        o.batch_rows = 4;
        o.seq_len = 32;
        o.max_steps = 10;
        o.seed = 3;
        emo::trainer trainer = emo::trainer::create(model, data, o);
        trainer.run();
        trainer.reset();
        model.save(out + "/run");

        emo::select_options choose;
        choose.keep = 4;
        choose.method = EMO_SELECT_LAYERWISE;
        emo::select(rt, model, read(argv[3]), choose).save(out + "/mask.json");

        emo::session_options fifteen;
        fifteen.max_tokens = 15;
        emo::session session = emo::session::create(model, fifteen);
        session.append("river bridge");
        for (const std::string_view piece : session.generate())
            std::cout << piece;
        std::cout << '\n';
    } catch (const emo::exception &e) {
        std::cerr << e.error().name() << ": " << e.what() << '\n';
        return 1;
    }
    return 0;
}
