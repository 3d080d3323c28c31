CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)

CREATE TABLE shares (
	id VARCHAR NOT NULL,
	generation VARCHAR NOT NULL,
	head_etag VARCHAR NOT NULL,
	entry BIGINT NOT NULL,
	is_deleted BOOLEAN NOT NULL,
	owner VARCHAR,
	expires_at BIGINT,
	title VARCHAR NOT NULL,
	reverted_to VARCHAR NOT NULL, log_etag VARCHAR, is_ahead BOOLEAN DEFAULT 0 NOT NULL,
	PRIMARY KEY (id)
)

CREATE TABLE texts (
	id BIGINT NOT NULL,
	share_id VARCHAR NOT NULL,
	item VARCHAR NOT NULL,
	message_id VARCHAR,
	part_id VARCHAR,
	role VARCHAR NOT NULL,
	tool VARCHAR NOT NULL,
	files TEXT NOT NULL,
	time BIGINT NOT NULL,
	PRIMARY KEY (id)
)

CREATE INDEX ix_texts_share ON texts (share_id, item)

CREATE TABLE leases (
	name VARCHAR NOT NULL,
	holder VARCHAR NOT NULL,
	until BIGINT NOT NULL,
	PRIMARY KEY (name)
)

CREATE TABLE progress (
	name VARCHAR NOT NULL,
	value VARCHAR NOT NULL,
	PRIMARY KEY (name)
)

CREATE TABLE catalogue (
	number INTEGER NOT NULL,
	id VARCHAR NOT NULL,
	generation VARCHAR NOT NULL,
	session_id VARCHAR NOT NULL,
	owner VARCHAR,
	title VARCHAR NOT NULL,
	directory VARCHAR NOT NULL,
	message_count BIGINT NOT NULL,
	part_count BIGINT NOT NULL,
	diff_count BIGINT NOT NULL,
	model_count BIGINT NOT NULL,
	sync_count BIGINT NOT NULL,
	created_order BIGINT NOT NULL,
	changed_order BIGINT NOT NULL,
	revision BIGINT NOT NULL,
	expires_at BIGINT,
	is_private INTEGER NOT NULL,
	has_password INTEGER NOT NULL,
	project VARCHAR NOT NULL,
	model VARCHAR NOT NULL,
	cost FLOAT NOT NULL,
	tokens BIGINT NOT NULL,
	files BIGINT NOT NULL,
	additions BIGINT NOT NULL,
	deletions BIGINT NOT NULL,
	first_prompt VARCHAR NOT NULL,
	words VARCHAR NOT NULL,
	organization VARCHAR,
	size BIGINT DEFAULT '0' NOT NULL,
	PRIMARY KEY (number),
	UNIQUE (id)
)

CREATE TABLE catalogue_counts (
	name VARCHAR NOT NULL,
	shares BIGINT NOT NULL,
	bytes BIGINT DEFAULT '0' NOT NULL,
	PRIMARY KEY (name)
)

CREATE INDEX ix_catalogue_created ON catalogue (created_order, id)

CREATE INDEX ix_catalogue_changed ON catalogue (changed_order, id)

CREATE INDEX ix_catalogue_owner_created ON catalogue (owner, created_order, id)

CREATE INDEX ix_catalogue_owner_changed ON catalogue (owner, changed_order, id)

CREATE INDEX ix_catalogue_project_created ON catalogue (project, created_order, id)

CREATE INDEX ix_catalogue_owner_project ON catalogue (owner, project, created_order, id)

CREATE INDEX ix_catalogue_private ON catalogue (is_private, created_order, id)

CREATE INDEX ix_catalogue_owner_private ON catalogue (owner, is_private, created_order, id)

CREATE INDEX ix_catalogue_expires ON catalogue (expires_at) WHERE expires_at IS NOT NULL

CREATE INDEX ix_catalogue_organization_created ON catalogue (organization, is_private, created_order, id) WHERE organization IS NOT NULL

CREATE INDEX ix_catalogue_organization_changed ON catalogue (organization, is_private, changed_order, id) WHERE organization IS NOT NULL

CREATE VIRTUAL TABLE catalogue_words USING fts5(words, content = 'catalogue', content_rowid = 'number', tokenize = 'trigram case_sensitive 1')

CREATE TRIGGER catalogue_added AFTER INSERT ON catalogue BEGIN INSERT INTO catalogue_words (rowid, words) VALUES (new.number, new.words); END

CREATE TRIGGER catalogue_removed AFTER DELETE ON catalogue BEGIN INSERT INTO catalogue_words (catalogue_words, rowid, words) VALUES ('delete', old.number, old.words); END

CREATE TRIGGER catalogue_changed AFTER UPDATE OF words ON catalogue WHEN old.words <> new.words BEGIN INSERT INTO catalogue_words (catalogue_words, rowid, words) VALUES ('delete', old.number, old.words); INSERT INTO catalogue_words (rowid, words) VALUES (new.number, new.words); END

CREATE VIRTUAL TABLE catalogue_pairs USING fts5(pairs, content = '', columnsize = 0, detail = none, tokenize = 'trigram case_sensitive 1')

CREATE VIRTUAL TABLE text_index USING fts5(body, marks, tokenize = 'unicode61 remove_diacritics 2')

CREATE VIRTUAL TABLE text_words USING fts5vocab('text_index', 'instance')

INSERT INTO text_index (text_index, rank) VALUES ('hashsize', 16777216)
